// A series as a CSV file for people, whole or not at all. What has come is handed to the browser piece by piece, which
// keeps it outside of the page's memory.

import * as format from "./format.js";
import { get } from "./session.js";

const PIECE_BYTES = 4 * 1024 * 1024;
const NEWLINE = 10;
// `# end 12345`: the line that only a whole export has. It is told apart from readings by the `#`, which no device's id has.
const END = /(?:^|\r\n)# end (\d+)\r\n$/;
const END_BYTES = 64;
const KIND = { type: "text/csv;charset=utf-8" };

class CutOff extends Error {}

// The button: what it saves, how far that is, and that it can be cancelled.
export class Downloads {
  constructor(button, messages) {
    this.button = button;
    this.messages = messages;
    this.label = button.textContent;
    this.running = null;
  }

  // files: [{series, from, to, name}]
  async clicked(files, failed) {
    if (this.running) return this.running.abort();
    if (!files.length) return this.messages.tell("Choose a series first.");
    const { signal } = (this.running = new AbortController());
    try {
      for (const file of files) await save(file, { signal, progress: (count, bytes) => this.#progress(file, count, bytes) });
      this.messages.tell("");
    } catch (error) {
      if (error instanceof CutOff) this.messages.tell("The download was cut off, and nothing was saved of it.", true);
      else if (signal.aborted) this.messages.tell("The download was cancelled.");
      else failed(error);
    } finally {
      this.running = null;
      this.button.textContent = this.label;
    }
  }

  #progress({ name }, count, bytes) {
    this.button.textContent = "Cancel";
    this.messages.tell(`${name}: ${format.readings(count)}, ${format.rough(bytes / 1e6)} MB so far.`);
  }
}

// `progress(readings, bytes)` is called as they come. CutOff when the end is missing.
async function save({ series, from, to, name }, { progress, signal }) {
  const { device, sensorType } = series;
  const query = { device, sensorType, from: Math.floor(from), to: Math.ceil(to), format: "csv", for: "spreadsheet", end: true };
  const response = await get("/readings", query, { signal });
  hand(await collected(response.body.getReader(), progress), `${name}.csv`);
}

async function collected(reader, progress) {
  const pieces = [];
  let waiting = [];
  let [bytes, lines, held] = [0, 0, 0];
  const put = () => {
    pieces.push(new Blob(waiting, KIND));
    [waiting, held] = [[], 0];
  };
  for (;;) {
    const { done, value } = await read(reader);
    if (done) break;
    waiting.push(value);
    bytes += value.length;
    held += value.length;
    for (const byte of value) lines += Number(byte === NEWLINE);
    if (held > PIECE_BYTES) put();
    progress(Math.max(0, lines - 1), bytes); // the first line names the columns
  }
  put();
  return whole(new Blob(pieces, KIND));
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CutOff();
  }
}

async function whole(file) {
  const begin = Math.max(0, file.size - END_BYTES);
  const tail = await file.slice(begin).text();
  const found = END.exec(tail);
  if (!found) throw new CutOff();
  const end = tail.slice(found.index).replace(/^\r\n/, "");
  return file.slice(0, file.size - new TextEncoder().encode(end).length, KIND.type);
}

function hand(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name.replace(/[^\w.:-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
