// A series as a CSV file for people, whole or not at all. What has come is handed to the browser piece by piece, which
// keeps it outside of the page's memory.

import { get } from "./session.js";

const PIECE_BYTES = 4 * 1024 * 1024;
const NEWLINE = 10;
// `# end 12345`: the line that only a whole export has. It is told apart from readings by the `#`, which no device's id has.
const END = /(?:^|\r\n)# end (\d+)\r\n$/;
const END_BYTES = 64;
const KIND = { type: "text/csv;charset=utf-8" };

export class CutOff extends Error {}

// Save readings of one series; `progress(readings, bytes)` is called as they come. CutOff when the end is missing.
export async function download(series, { from, to }, name, { progress, signal }) {
  const { device, sensorType } = series;
  const query = { device, sensorType, from: Math.floor(from), to: Math.ceil(to), format: "csv", for: "spreadsheet", end: true };
  const response = await get("/readings", query, { signal });
  save(await collected(response.body.getReader(), progress), name);
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

function save(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name.replace(/[^\w.:-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
