// Downloads a series as a CSV file, completely or not at all. Received data is moved into Blobs, which the browser
// keeps outside the page's memory.

import * as format from "./format.js";
import { get } from "./session.js";

const BLOB_BYTES = 4 * 1024 * 1024;
const NEWLINE = 10;
// `# end 12345`: the last line of a complete export. No reading starts with `#`, as no device id contains it.
const END = /(?:^|\r\n)# end (\d+)\r\n$/;
const END_BYTES = 64;
const KIND = { type: "text/csv;charset=utf-8" };

class IncompleteDownload extends Error {}

// The button: starts a download, shows its progress and cancels it.
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
    if (!files.length) return this.messages.notify("Choose a series first.");
    const { signal } = (this.running = new AbortController());
    try {
      for (const file of files) await save(file, { signal, progress: (count, bytes) => this.#progress(file, count, bytes) });
      this.messages.notify("");
    } catch (error) {
      if (error instanceof IncompleteDownload) this.messages.notify("The download was interrupted, and nothing was saved.", true);
      else if (signal.aborted) this.messages.notify("The download was cancelled.");
      else failed(error);
    } finally {
      this.running = null;
      this.button.textContent = this.label;
    }
  }

  #progress({ name }, count, bytes) {
    this.button.textContent = "Cancel";
    this.messages.notify(`${name}: ${format.readings(count)}, ${format.rough(bytes / 1e6)} MB so far.`);
  }
}

// `progress(readings, bytes)` is called as data arrives. IncompleteDownload when the end line is missing.
async function save({ series, from, to, name }, { progress, signal }) {
  const { device, sensorType } = series;
  const query = { device, sensorType, from: Math.floor(from), to: Math.ceil(to), format: "csv", for: "spreadsheet", end: true };
  const response = await get("/readings", query, { signal });
  saveAs(await collect(response.body.getReader(), progress), `${name}.csv`);
}

async function collect(reader, progress) {
  const blobs = [];
  let chunks = [];
  let [bytes, lines, chunkBytes] = [0, 0, 0];
  const flush = () => {
    blobs.push(new Blob(chunks, KIND));
    [chunks, chunkBytes] = [[], 0];
  };
  for (;;) {
    const { done, value } = await read(reader);
    if (done) break;
    chunks.push(value);
    bytes += value.length;
    chunkBytes += value.length;
    for (const byte of value) lines += Number(byte === NEWLINE);
    if (chunkBytes > BLOB_BYTES) flush();
    progress(Math.max(0, lines - 1), bytes); // without the header line
  }
  flush();
  return withoutEndLine(new Blob(blobs, KIND));
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new IncompleteDownload();
  }
}

async function withoutEndLine(file) {
  const begin = Math.max(0, file.size - END_BYTES);
  const tail = await file.slice(begin).text();
  const found = END.exec(tail);
  if (!found) throw new IncompleteDownload();
  const end = tail.slice(found.index).replace(/^\r\n/, "");
  return file.slice(0, file.size - new TextEncoder().encode(end).length, KIND.type);
}

function saveAs(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name.replace(/[^\w.:-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
