// A device that streams to Tidegate, and keeps every reading in a file until the server has it.
//
//   const { Device } = require("./device/js");
//   const device = new Device({ url, token, buffer: "readings.log" });
//   await device.send({ sensorType: "temperature", value: 20.5 });
//
// `send` returns when the reading is in the buffer; the device connects, sends, retries and reconnects by itself. A
// reading leaves the buffer when the gateway has accepted it (with `receipts`: when it is stored), when it was rejected
// (`onRejected`), or when the buffer is full (`onDropped`). With `receipts` it is kept for a while after it was stored,
// and asked about once more: a server that was restored from a backup gets again what it has lost.
//
// A killed process loses nothing: `send` writes to the file. A power cut loses at most a second: that is how often the
// file is synchronised. After a doubt a reading is sent again under the same `ts` and `seq`, and so is stored once.

"use strict";

const { createHash } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { io } = require("socket.io-client");

// The most that one event may have: 1,000 readings and 1 MiB (docs/protocol.md). Some room is left for its frame.
const MOST_READINGS = 1000;
const MOST_BYTES = 1_000_000;
// More than any valid reading has.
const MOST_READING_BYTES = 65_536;
const CONNECT_MS = 25_000;
// A gateway answers every event within 5 s, without the broker as well.
const ACK_MS = 10_000;
const REQUEST_MS = 10_000;
const TOKEN_MS = 30_000;
const RENEW_AGAIN_MS = 5000;
const BACKOFF_MS = { least: 250, most: 5000 };
// After a refusal for good, with a token function, which may have another token by then.
const REFUSED_MS = { least: 5000, most: 60_000 };
// Codes of a refusal for now; a gateway refuses so before the connect, or by closing with 1013.
const TEMPORARY = new Set(["unavailable", "rate_limited", "busy"]);
const MOST_RETRY_MS = 300_000;
const RECEIPT_MS = 30_000;
const RECEIPT_CHECK_MS = 5000;
// Accepted, and not stored after this: sent again. It doubles each time, up to the second one, and ends some day: a
// reading that became a dead letter is never stored.
const RESEND_MS = { least: 60_000, most: 600_000 };
const MOST_MISSED = 24;
// Those that had to be sent again more often are not kept when they are stored: somebody removes them there.
const MOST_MISSED_KEPT = 3;
// Kept readings whose time is over wait for each other, this part of it at most, so that questions are few.
const TOGETHER = 0.5;
const FIRST_QUESTION_MS = 10_000;
const NO_ANSWER_MS = 10_000;
const SENDS_A_TURN = 50;
const SYNC_MS = 1000;
// How old the counts in the file may be where only readings are dropped that were never in it.
const COUNTS_MS = 10_000;
const COMPACT_BYTES = 1_048_576;
const HEARTBEAT_MS = 5000;
const HOLDER_SILENT_MS = 15_000;
const COMMANDS_KEPT = 1000;
// Servers take no larger result. An acknowledgement above 4 MiB would end the connection, at each delivery again.
const MOST_RESULT_BYTES = 16_384;
const MOST_DETAIL = 1000;
// So many readings at most stay in the file until an async function that is told of them has ended. Of one that never
// ends each call would keep another one, beyond `maxPending`.
const MOST_AWAITED = 1000;
// The longest delay of a timer, 24.8 days: a longer one would be over at once.
const MOST_TIMER_MS = 2 ** 31 - 1;
const MOST_RENEWAL_MS = 7 * 86_400_000;
const LEAST_RENEWAL_MS = 60_000;
const OPTIONS = new Set(["url", "token", "buffer", "receipts", "maxPending", "drop", "keepStoredMs"]);
const HEADER = "tidegate device buffer 1\n";
const FULL = new Set(["ENOSPC", "EFBIG", "EDQUOT"]);

/** The server refuses this device for good; `code` says why: `unauthorized`, `expired`, `revoked`, `forbidden`, … */
class DeviceRefused extends Error {
  constructor(code, detail) {
    super(detail ? `${code}: ${detail}` : code);
    this.name = "DeviceRefused";
    this.code = code;
  }
}

/** Not now; `retryAfterMs` is what the server asks for. */
class NotNow extends Error {
  constructor(status, header) {
    super(`HTTP ${status}`);
    this.status = status;
    this.retryAfterMs = /^\d+$/.test(header ?? "") ? Math.min(Number(header) * 1000, MOST_RETRY_MS) : 0;
  }
}

/** `flush` waited as long as it was told to. */
class TimeoutError extends Error {
  constructor(message) {
    super(message);
    this.name = "TimeoutError";
  }
}

/** Another process, or another Device of this one, uses the same buffer. */
class BufferInUse extends Error {
  constructor(message) {
    super(message);
    this.name = "BufferInUse";
  }
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

// CRC-32 (IEEE 802.3), as 8 hexadecimal digits; zlib.crc32 is newer than Node 18.
function checksum(bytes) {
  let value = ~0;
  for (let at = 0; at < bytes.length; at++) value = CRC_TABLE[(value ^ bytes[at]) & 0xff] ^ (value >>> 8);
  return (~value >>> 0).toString(16).padStart(8, "0");
}

const warned = new Set();

function warn(text, kind = text) {
  if (warned.size < 1000 && !warned.has(kind)) process.emitWarning(text, "DeviceWarning");
  warned.add(kind);
}

function readText(file) {
  try {
    return fs.readFileSync(file, "latin1");
  } catch {
    return "";
  }
}

// A process id may be used again: with its start time (field 22, in ticks since boot) and the boot it is unique. Only
// Linux has these; elsewhere the id must do.
const startOf = (pid) => readText(`/proc/${pid}/stat`).split(") ").at(-1).split(" ")[19] ?? "0";
const bootId = () => readText("/proc/sys/kernel/random/boot_id").slice(0, 8) || "0";

function namespaceOf() {
  try {
    return fs.readlinkSync("/proc/self/ns/pid").replace(/\D/g, "");
  } catch {
    return "0";
  }
}

// The lock of a buffer: each process creates a claim, a file whose name says who it is, then looks for other claims. A
// claim of a process that has ended is removed; nobody ever removes a living one, so two can never both succeed.
class Claim {
  #file;
  #prefix;
  #heartbeat;

  constructor(file) {
    this.#prefix = `${file}.lock.`;
    const mine = [process.pid, startOf(process.pid), bootId(), namespaceOf()].join(".");
    this.#file = this.#prefix + mine;
    const inUse = () => new BufferInUse(`${file} is in use by another device; each needs a buffer of its own`);
    for (let attempt = 1; ; attempt++) {
      try {
        fs.closeSync(fs.openSync(this.#file, "wx", 0o600));
      } catch (error) {
        throw error.code === "EEXIST" ? inUse() : error;
      }
      if (!this.#others().length) break;
      fs.unlinkSync(this.#file);
      if (attempt === 3) throw inUse();
      // Two that start at the same time see each other.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10 + Math.random() * 40);
    }
    this.#heartbeat = setInterval(() => this.#touch(), HEARTBEAT_MS).unref();
  }

  #others() {
    const folder = path.dirname(this.#file);
    const claims = fs.readdirSync(folder).map((name) => path.join(folder, name));
    return claims.filter((claim) => claim.startsWith(this.#prefix) && claim !== this.#file && this.#alive(claim));
  }

  #alive(claim) {
    const [pid, start, boot, namespace] = claim.slice(this.#prefix.length).split(".");
    let alive;
    if (namespace === namespaceOf()) {
      alive = boot === bootId() && running(Number(pid)) && startOf(pid) === start;
    } else {
      // A process of another container cannot be seen, but it touches its claim.
      try {
        alive = fs.statSync(this.#file).mtimeMs - fs.statSync(claim).mtimeMs < HOLDER_SILENT_MS;
      } catch {
        alive = false;
      }
    }
    if (!alive) fs.rmSync(claim, { force: true });
    return alive;
  }

  #touch() {
    try {
      fs.utimesSync(this.#file, new Date(), new Date());
    } catch {
      // a full or lost disk: sending and appending report that
    }
  }

  release() {
    clearInterval(this.#heartbeat);
    fs.rmSync(this.#file, { force: true });
  }
}

function running(pid) {
  if (/\) [ZX] /.test(readText(`/proc/${pid}/stat`))) return false; // it has ended, and its parent does not know yet
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

// An append-only file of records, one a line: a checksum, a space, and the text. What a crash has left of the last
// record is cut off when it is opened. It is synchronised at most once a second.
class Log {
  size = 0;
  #file;
  #fd;
  #claim;
  #rewrite;
  #dirty = false;
  // The system reports a failed write once and forgets it: the next fsync succeeds, and the file has a hole.
  #inDoubt = false;
  #syncing = false;
  #timer = null;
  #syncedAt = -Infinity;

  /** `rewrite` replaces the file by what it should have, and returns whether it could. */
  constructor(file, onRecord, rewrite) {
    this.#rewrite = rewrite;
    const folder = fs.realpathSync(path.dirname(path.resolve(file)));
    this.#file = path.join(folder, path.basename(file));
    if (fs.existsSync(this.#file)) this.#file = fs.realpathSync(this.#file);
    this.#claim = new Claim(this.#file);
    try {
      fs.rmSync(`${this.#file}.new`, { force: true });
      this.#fd = fs.openSync(this.#file, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
      this.#load(fs.readFileSync(this.#fd), onRecord);
    } catch (error) {
      if (this.#fd !== undefined) fs.closeSync(this.#fd);
      this.#claim.release();
      throw error;
    }
  }

  #load(data, onRecord) {
    const header = data.subarray(0, HEADER.length).toString("latin1");
    if (!HEADER.startsWith(header)) throw new Error(`${this.#file} is not a device's buffer`);
    if (header !== HEADER) {
      this.#write(Buffer.from(HEADER));
      fs.fsyncSync(this.#fd);
      this.#syncFolder();
      return;
    }
    let at = HEADER.length;
    let good = at;
    let damaged = 0;
    let bad = 0;
    for (let end; (end = data.indexOf(10, at)) !== -1; at = end + 1) {
      const text = data.subarray(at + 9, end);
      if (data.toString("latin1", at, at + 8) === checksum(text)) {
        onRecord(text.toString());
        good = end + 1;
        damaged = bad;
      } else {
        bad += 1;
      }
    }
    if (damaged) warn(`${this.#file} has ${damaged} damaged records, which are lost`);
    if (good < data.length) fs.ftruncateSync(this.#fd, good);
    this.size = good;
  }

  /** Append records; throws if they cannot be written, with the file as it was. */
  append(records) {
    this.#write(Buffer.concat(records.map(line)));
    this.#dirty = true;
    this.#syncSoon();
  }

  #write(bytes) {
    try {
      writeAll(this.#fd, bytes, this.size);
    } catch (error) {
      try {
        fs.ftruncateSync(this.#fd, this.size);
      } catch {
        // the next record is written over it, and a torn one is cut off at the start
      }
      throw error;
    }
    this.size += bytes.length;
  }

  /** Replace the whole file by these records: a new file, synchronised, takes its name. Throws as `append` does. */
  replace(records) {
    const name = `${this.#file}.new`;
    let fd;
    let size = 0;
    try {
      fd = fs.openSync(name, "w", 0o600);
      const write = (parts) => {
        const bytes = Buffer.concat(parts);
        writeAll(fd, bytes, size);
        size += bytes.length;
      };
      let parts = [Buffer.from(HEADER)];
      for (const record of records) {
        if (parts.push(line(record)) < 1000) continue;
        write(parts);
        parts = [];
      }
      write(parts);
      fs.fsyncSync(fd);
      fs.renameSync(name, this.#file);
    } catch (error) {
      if (fd !== undefined) fs.closeSync(fd);
      fs.rmSync(name, { force: true });
      throw error;
    }
    if (!this.#syncing) fs.closeSync(this.#fd);
    this.#fd = fd;
    this.size = size;
    this.#dirty = this.#inDoubt = false;
    this.#syncFolder();
  }

  /** Write these records over the old ones, and cut the rest off: a full disk has room for that. */
  restart(records) {
    const bytes = Buffer.concat([Buffer.from(HEADER), ...records.map(line)]);
    if (bytes.length > this.size) throw new RangeError("the file is smaller than what it should have");
    writeAll(this.#fd, bytes, 0);
    fs.ftruncateSync(this.#fd, bytes.length);
    this.size = bytes.length;
    this.#dirty = true;
    this.#syncSoon();
  }

  #syncFolder() {
    try {
      const folder = fs.openSync(path.dirname(this.#file), "r");
      fs.fsyncSync(folder);
      fs.closeSync(folder);
    } catch {
      // Windows cannot
    }
  }

  #syncSoon() {
    if (this.#timer !== null || this.#syncing) return;
    const wait = Math.max(0, this.#syncedAt + SYNC_MS - performance.now());
    this.#timer = setTimeout(() => this.#sync(), wait).unref();
  }

  #sync() {
    this.#timer = null;
    if (!this.#dirty) return;
    this.#syncedAt = performance.now();
    if (this.#inDoubt) {
      if (!this.#rewrite()) this.#syncSoon();
      return;
    }
    this.#dirty = false;
    this.#syncing = true;
    const fd = this.#fd;
    fs.fsync(fd, (error) => {
      this.#syncing = false;
      if (fd !== this.#fd) fs.closeSync(fd); // replaced or closed meanwhile
      else if (error) {
        warn(`${this.#file} cannot be synchronised: ${error.message}`);
        this.#dirty = this.#inDoubt = true;
      }
      if (this.#dirty && this.#fd !== null) this.#syncSoon();
    });
  }

  close() {
    clearTimeout(this.#timer);
    if (this.#inDoubt) this.#rewrite();
    const fd = this.#fd;
    this.#fd = null;
    try {
      if (this.#dirty) fs.fsyncSync(fd);
    } finally {
      if (!this.#syncing) fs.closeSync(fd);
      this.#claim.release();
    }
  }
}

function line(record) {
  const bytes = Buffer.from(`00000000 ${record}\n`);
  bytes.write(checksum(bytes.subarray(9, -1)), "latin1");
  return bytes;
}

function writeAll(fd, bytes, position) {
  for (let done = 0; done < bytes.length; ) {
    done += fs.writeSync(fd, bytes, done, bytes.length - done, position + done);
  }
}

// The readings that the server does not have yet, by number, oldest first, those that are kept although it has them, in
// the order in which they were stored, and the count of each series. Records: `r12 {reading}`, `f1-9,12` (free),
// `k1767225600 1-9,12` (kept since), `m2 1-9,12` (had to be sent again that often, and are pending), and the state,
// `s{next,counts,sensorType,renewed}`.
class Store {
  entries = new Map();
  kept = new Map();
  #leaving = new Map(); // neither pending nor kept: being told, and then freed
  sensorType = ""; // the device's own, which the token has; "" while it is not known
  renewed = null; // the newest token, and the hash of the one that it renews: { of, text }
  #next = 1;
  #counts = new Map();
  #log = null;
  #live = 0; // bytes
  #hasSkipped = false; // a `seq` was used up by a reading that has no record
  #countsAt = -Infinity; // when the counts were written for that
  #owed = []; // records that a full disk did not take
  #compactAt = COMPACT_BYTES;
  #clockOffMs = Date.now() - performance.now();

  constructor(file) {
    if (file === null) return;
    this.#log = new Log(
      file,
      (record) => this.#restore(record),
      () => this.#compact(),
    );
    this.#mergeCounts();
  }

  /** Seconds since 1970, by the clock of the start: one that is set later makes nothing older. */
  get clock() {
    return Math.floor((this.#clockOffMs + performance.now()) / 1000);
  }

  #restore(record) {
    const text = record.slice(1);
    if (record[0] === "r") {
      const split = text.indexOf(" ");
      const reading = JSON.parse(text.slice(split + 1));
      this.#put(entryOf(Number(text.slice(0, split)), reading, Buffer.byteLength(record)));
    } else if (record[0] === "f") {
      for (const number of numbersOf(text)) this.#remove(number);
    } else if (record[0] === "k" || record[0] === "m") {
      const [count, numbers] = text.split(" ");
      for (const number of numbersOf(numbers)) {
        const entry = this.entries.get(number) ?? this.kept.get(number);
        if (!entry) continue;
        if (record[0] === "k") this.#move(entry, Math.min(Number(count), this.clock));
        else this.#move(entry, null).missed = Number(count);
      }
    } else if (record[0] === "s") {
      const state = JSON.parse(text);
      this.sensorType = state.sensorType;
      this.renewed = state.renewed;
      this.#next = Math.max(this.#next, state.next);
      for (const [key, count] of Object.entries(state.counts)) this.#raise(key, count);
    }
  }

  #put(entry) {
    this.entries.set(entry.number, entry);
    this.#live += entry.bytes;
    this.#next = Math.max(this.#next, entry.number + 1);
    this.#count(entry.reading);
  }

  #count({ sensorType, seq }) {
    if (Number.isSafeInteger(seq) && seq < 2 ** 52 - 1) this.#raise(sensorType ?? "", seq + 1);
  }

  #remove(number) {
    const entry = this.entries.get(number) ?? this.kept.get(number) ?? this.#leaving.get(number);
    if (!entry) return;
    for (const entries of [this.entries, this.kept, this.#leaving]) entries.delete(number);
    this.#live -= entry.bytes;
  }

  // To those that are kept, or with null to those that are pending.
  #move(entry, storedAt) {
    entry.storedAt = storedAt;
    this.entries.delete(entry.number);
    this.kept.delete(entry.number);
    (storedAt === null ? this.entries : this.kept).set(entry.number, entry);
    return entry;
  }

  #raise(key, count) {
    if (count > (this.#counts.get(key) ?? 0)) this.#counts.set(key, count);
  }

  // Readings without sensorType may be of any series, so their seq must differ from all others'.
  #seq(key) {
    const count = this.#counts.get(key) ?? 0;
    return key ? Math.max(count, this.#counts.get("") ?? 0) : Math.max(0, ...this.#counts.values());
  }

  #mergeCounts() {
    if (!this.sensorType || !this.#counts.has("")) return;
    this.#raise(this.sensorType, this.#counts.get(""));
    this.#counts.delete("");
  }

  /** Keep the device's own sensorType, of its token. */
  learn(sensorType) {
    if (typeof sensorType !== "string" || !sensorType || sensorType === this.sensorType) return;
    this.sensorType = sensorType;
    this.#mergeCounts();
    this.#append(this.#state());
  }

  /** Keep a token that the device has renewed by itself: what it was configured with ends some day. */
  keepToken(renewed) {
    this.renewed = renewed;
    this.#append(this.#state());
  }

  #state() {
    const counts = Object.fromEntries(this.#counts);
    return `s${JSON.stringify({ next: this.#next, counts, sensorType: this.sensorType, renewed: this.renewed })}`;
  }

  /** Add a reading, with `ts` and `seq`, and return its entry; throws if it cannot be written. */
  add(given) {
    const reading = this.#completed(given);
    const record = this.#recordOf(reading);
    const entry = entryOf(this.#next, reading, Buffer.byteLength(record));
    this.#write(record);
    this.#put(entry);
    return entry;
  }

  /** Return a reading as it would be added: its `seq` is used up, so that the server knows of a gap. */
  skip(given) {
    const reading = this.#completed(given);
    this.#recordOf(reading);
    this.#count(reading);
    this.#hasSkipped = true;
    if (performance.now() >= this.#countsAt + COUNTS_MS) this.#writeCounts();
    return reading;
  }

  // One that fails, as on a full disk, is tried again with a later `skip`, and at the end.
  #writeCounts() {
    this.#countsAt = performance.now();
    if (this.#log === null || !this.#hasSkipped) return;
    try {
      this.#log.append([...this.#owed, this.#state()]);
    } catch {
      return;
    }
    this.#owed = [];
    this.#hasSkipped = false;
    this.#compactSometimes();
  }

  #completed(given) {
    const reading = plain(given);
    if (this.sensorType) reading.sensorType ??= this.sensorType;
    reading.ts ??= Date.now();
    reading.seq ??= this.#seq(reading.sensorType ?? "");
    return reading;
  }

  #recordOf(reading) {
    const record = `r${this.#next} ${JSON.stringify(reading)}`;
    const bytes = Buffer.byteLength(record);
    if (bytes > MOST_READING_BYTES) throw new RangeError(`a reading of ${bytes} bytes; at most ${MOST_READING_BYTES}`);
    return record;
  }

  #write(record) {
    if (this.#log === null) return;
    try {
      this.#log.append([...this.#owed, record]);
      this.#owed = [];
    } catch (error) {
      // What is freed has to make room; a failure in that is reported as the first.
      if (FULL.has(error.code) && this.kept.size) this.#dropKept(MOST_READINGS);
      if (!FULL.has(error.code) || this.#garbage() < 4096 || !this.#compact()) throw error;
      this.#log.append([record]);
    }
  }

  // Append a record that may come later: without it, a reading is sent once more after a restart.
  #append(record) {
    if (this.#log === null) return;
    try {
      this.#log.append([...this.#owed, record]);
      this.#owed = [];
    } catch (error) {
      this.#owed.push(record);
      warn(`the buffer cannot be written: ${error.message}`);
    }
  }

  /** Count an entry as pending no more; it stays in the file until it is freed. */
  leave(entry) {
    this.#leaving.set(entry.number, entry);
    this.entries.delete(entry.number);
  }

  /** Remove entries, whatever they are. */
  free(entries) {
    if (!entries.length) return;
    for (const { number } of entries) this.#remove(number);
    this.#append(`f${ranges(entries)}`);
    this.#compactSometimes();
  }

  /** Keep entries, which are stored now. */
  keep(entries) {
    if (!entries.length) return;
    const now = this.clock;
    for (const entry of entries) this.#move(entry, now);
    this.#append(`k${now} ${ranges(entries)}`);
    this.#compactSometimes();
  }

  /** Count that these have to be sent again; those that were kept are pending again. */
  miss(entries) {
    const byCount = new Map();
    for (const entry of entries) {
      entry.missed += 1;
      if (entry.storedAt !== null) this.#move(entry, null);
      if (!byCount.has(entry.missed)) byCount.set(entry.missed, []);
      byCount.get(entry.missed).push(entry);
    }
    for (const [count, some] of byCount) this.#append(`m${count} ${ranges(some)}`);
    this.#compactSometimes();
  }

  /** Remove the oldest of those that are kept. */
  dropKept(count) {
    this.free([...this.kept.values()].slice(0, count));
  }

  // On a full disk: the record of it comes later.
  #dropKept(count) {
    const oldest = [...this.kept.values()].slice(0, count);
    for (const { number } of oldest) this.#remove(number);
    this.#owed.push(`f${ranges(oldest)}`);
  }

  #compactSometimes() {
    if (this.#log !== null && this.#garbage() >= Math.max(this.#compactAt, this.#live)) this.#compact();
  }

  #garbage() {
    return this.#log.size - this.#live;
  }

  #compact() {
    try {
      this.#rewrite();
    } catch (error) {
      this.#compactAt = this.#garbage() + COMPACT_BYTES;
      warn(`the buffer cannot be compacted: ${error.message}`);
      return false;
    }
    this.#compactAt = COMPACT_BYTES;
    this.#owed = [];
    return true;
  }

  #rewrite() {
    try {
      this.#log.replace(this.#records());
    } catch (error) {
      // A disk that this file has filled has no room for another one. All readings in it are freed: a process that is
      // killed meanwhile sends some of them once more.
      if (!FULL.has(error.code) || this.#live) throw error;
      this.#log.restart([this.#state()]);
    }
  }

  *#records() {
    yield this.#state();
    for (const entries of [this.kept, this.#leaving, this.entries]) {
      for (const { number, reading } of entries.values()) yield `r${number} ${JSON.stringify(reading)}`;
      for (const [count, some] of runs(entries.values(), "missed")) if (count) yield `m${count} ${ranges(some)}`;
      for (const [since, some] of runs(entries.values(), "storedAt")) if (since) yield `k${since} ${ranges(some)}`;
    }
  }

  close() {
    this.#writeCounts();
    this.#log?.close();
  }
}

function entryOf(number, reading, bytes) {
  return { number, reading, bytes, sending: false, acceptedAt: 0, askedAt: 0, missed: 0, storedAt: null, round: 0 };
}

function ranges(entries) {
  const numbers = entries.map(({ number }) => number).sort((one, other) => one - other);
  const found = [];
  for (const number of numbers) {
    const last = found.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found.map(([from, to]) => (from === to ? from : `${from}-${to}`)).join(",");
}

function* numbersOf(text) {
  for (const range of text.split(",")) {
    const [from, to = from] = range.split("-").map(Number);
    for (let number = from; number <= to; number++) yield number;
  }
}

// Entries that follow each other and have the same value in that field: [value, entries].
function* runs(entries, field) {
  let run = [];
  for (const entry of entries) {
    if (run.length && run[0][field] !== entry[field]) {
      yield [run[0][field], run];
      run = [];
    }
    run.push(entry);
  }
  if (run.length) yield [run[0][field], run];
}

// A copy as JSON has it: a Buffer among the values would make a binary event, which gateways do not take.
function plain(reading) {
  if (reading === null || typeof reading !== "object" || Array.isArray(reading)) {
    throw new TypeError("a reading is an object, like { sensorType, value }");
  }
  const copy = { ...reading };
  if (copy.ts instanceof Date) copy.ts = copy.ts.getTime();
  return Object.values(copy).some((value) => value !== null && typeof value === "object")
    ? JSON.parse(JSON.stringify(copy))
    : copy;
}

// Since 1970; a leap second is stored as the next second.
function millisecondsOf(ts) {
  if (typeof ts === "number") return ts;
  const leap = /:60(\.\d+)?/;
  return leap.test(ts) ? Date.parse(ts.replace(leap, ":59")) + 1000 : Date.parse(ts);
}

// One connection: from its opening until it is lost. `opened` rejects with DeviceRefused, or an Error for now.
class Connection {
  closed = false;
  #socket;
  #open = new Set();
  #onLost;
  #fail;

  constructor(url, auth, { onLost, events }) {
    this.#onLost = onLost;
    this.#socket = io(url, {
      auth,
      transports: ["websocket"],
      reconnection: false, // the official client does not come back after every refusal
      forceNew: true,
      autoConnect: false,
    });
    this.opened = new Promise((resolve, reject) => {
      const fail = (error) => {
        clearTimeout(timer);
        reject(error);
        this.close();
      };
      this.#fail = fail;
      const timer = setTimeout(() => fail(new Error("no answer to the connect")), CONNECT_MS);
      this.#socket.on("connect", () => {
        clearTimeout(timer);
        resolve();
      });
      this.#socket.on("connect_error", ({ data, message }) => {
        const isFinal = data?.code && !TEMPORARY.has(data.code);
        fail(isFinal ? new DeviceRefused(data.code, message) : new Error(message));
      });
      this.#socket.on("disconnect", (reason) => fail(new Error(reason)));
      // A refusal closes the manager first, and is reported then.
      this.#socket.io.on("close", (reason) => queueMicrotask(() => fail(new Error(reason))));
    });
    for (const [name, handler] of Object.entries(events)) this.#socket.on(name, handler);
    this.#socket.connect();
    // Of the `ws` package, which Engine.IO uses in Node.js; it reports a refusal without its Retry-After.
    this.#socket.io.engine?.transport?.ws?.once?.("unexpected-response", (request, response) => {
      this.#fail(new NotNow(response.statusCode, response.headers["retry-after"]));
      request.destroy();
    });
  }

  /** Send an event and return its acknowledgement; undefined if none comes: nothing is promised. */
  request(event, payload) {
    return new Promise((resolve) => {
      if (this.closed) return resolve(undefined);
      const done = (answer) => {
        clearTimeout(timer);
        this.#open.delete(done);
        resolve(answer);
      };
      // Every event is answered on a connection that works.
      const timer = setTimeout(() => this.close(), ACK_MS);
      this.#open.add(done);
      this.#socket.emit(event, payload, done);
    });
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    this.#socket.disconnect();
    this.#socket.io.engine?.close(); // of a connect that is under way
    this.#fail(new Error("closed"));
    for (const done of [...this.#open]) done(undefined);
    this.#onLost();
  }
}

// The device's token. One given as text is renewed by the device itself, long before its end.
class Token {
  fresh = false; // fetched for the present attempt
  #url;
  #source;
  #given;
  #of;
  #text;
  #store;

  constructor(url, token, store) {
    this.#url = url;
    this.#store = store;
    this.#source = typeof token === "function" ? token : null;
    this.#given = this.#source ? "" : token;
    this.#of = createHash("sha256").update(this.#given).digest("hex");
    this.#text = this.#given && store.renewed?.of === this.#of ? store.renewed.text : this.#given;
  }

  get replaceable() {
    return this.#source !== null;
  }

  get text() {
    return this.#text;
  }

  get claims() {
    try {
      return JSON.parse(Buffer.from(this.#text.split(".")[1], "base64url").toString()) ?? {};
    } catch {
      return {};
    }
  }

  async current() {
    this.fresh = !this.#text;
    if (this.fresh) this.#text = await this.#fetch();
    return this.#text;
  }

  accept(text) {
    this.#text = text;
    if (!this.#source) this.#store.keepToken({ of: this.#of, text });
  }

  /** Fetch a new one before the next connect. */
  forget() {
    if (this.#source) this.#text = "";
  }

  /** After a refusal, return whether there is another token to try. */
  replace() {
    const another = this.#source ? !this.fresh : this.#text !== this.#given;
    this.#text = this.#given;
    return another;
  }

  /** Return a new token; DeviceRefused: this device cannot have one. */
  renewed() {
    return this.#source ? this.#fetch() : this.#renewText();
  }

  async #fetch() {
    const text = await within(TOKEN_MS, Promise.resolve().then(this.#source));
    if (typeof text !== "string" || !text) throw new Error("the token function returned no token");
    return text;
  }

  async #renewText() {
    const { device } = this.claims;
    if (typeof device !== "string") throw new DeviceRefused("forbidden", "not a device's token");
    const answer = await post(`${this.#url}/devices/${encodeURIComponent(device)}/token`, this.#text);
    if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) throw new DeviceRefused("forbidden");
    const { token } = answer.ok ? await answer.json() : {};
    if (typeof token !== "string") throw new Error(`HTTP ${answer.status}`);
    return token;
  }

  /** When a token given as text should be renewed: after half its time. */
  get renewalMs() {
    const { iat, exp } = this.claims;
    if (this.#source || typeof iat !== "number" || typeof exp !== "number") return null;
    return Math.min(Math.max(((iat + exp) / 2) * 1000 - Date.now(), LEAST_RENEWAL_MS), MOST_RENEWAL_MS);
  }
}

function post(url, token, body) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  return fetch(url, { method: "POST", headers, body, signal: AbortSignal.timeout(REQUEST_MS) });
}

async function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new TimeoutError(`nothing within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// Runs each command once: a repeated id gets the same answer.
class Commands {
  #answers = new Map();

  answer(command, run) {
    const id = command?.id;
    if (typeof id !== "string") return this.#run(command, run);
    if (!this.#answers.has(id)) {
      this.#answers.set(id, this.#run(command, run));
      if (this.#answers.size > COMMANDS_KEPT) this.#answers.delete(this.#answers.keys().next().value);
    }
    return this.#answers.get(id);
  }

  async #run(command, run) {
    if (typeof run !== "function") return { status: "failed", detail: "this device takes no commands" };
    try {
      const result = await run({ name: command.name, payload: command.payload });
      const text = JSON.stringify(result ?? null) ?? "null";
      const bytes = Buffer.byteLength(text);
      if (bytes > MOST_RESULT_BYTES) {
        throw new RangeError(`the result has ${bytes} bytes of JSON, and may have ${MOST_RESULT_BYTES}`);
      }
      return { status: "done", result: JSON.parse(text) };
    } catch (error) {
      return { status: "failed", detail: String(error?.message ?? error).slice(0, MOST_DETAIL) };
    }
  }
}

/** A device; see the top of this file. */
class Device {
  /** Called with (reading, code, detail) for a reading that the server will never take. */
  onRejected = null;
  /** Called with a reading that was dropped because `maxPending` others wait. */
  onDropped = null;
  /** Called with { name, payload }; what it returns is the command's result, what it throws its failure. */
  onCommand = null;
  #url;
  #token;
  #receipts;
  #maxPending;
  #drop;
  #store;
  #waiting = new Map(); // by number: entries to send
  #accepted = new Map(); // by number: with receipts, entries that are accepted and not stored
  #identities = new Map(); // with receipts: entries by sensorType, ts and seq
  #commands = new Commands();
  #dropped = 0;
  #awaited = 0; // readings that are being told
  #most = MOST_READINGS; // in the next event
  #connection = null;
  #wake = () => {};
  #pauses = new Set();
  #flushes = new Set();
  #refused = null;
  #closed = false;
  #renewing = false;
  #answeredAt = 0;
  #running;
  #asking = null;
  #askedNow = false;
  #sends = 0;
  #renewal = null;
  #keepStoredMs;
  #askingAboutKept = false;
  #askAboutKeptAt = 0;
  #round = 1; // of questions about kept readings
  #roundUntil = 0; // what was kept until then takes part in it, in seconds since 1970
  #unsupported = false; // the server has no receipts
  #receiptsHaveCome = false; // it has, whatever a single answer says

  /** Open the buffer and begin to connect; throws BufferInUse, or what the file system says. */
  constructor(options) {
    const { url, token, buffer, receipts, maxPending, drop, keepStoredMs } = checked(options);
    this.#url = url;
    this.#receipts = receipts;
    this.#maxPending = maxPending;
    this.#drop = drop;
    this.#keepStoredMs = receipts ? keepStoredMs : 0;
    this.#store = new Store(buffer);
    if (!this.#keepStoredMs) this.#store.dropKept(Infinity);
    this.#askAboutKeptAt = performance.now() + Math.random() * Math.min(FIRST_QUESTION_MS, keepStoredMs);
    this.#token = new Token(url, token, this.#store);
    for (const entry of this.#store.entries.values()) this.#waiting.set(entry.number, entry);
    this.#learn();
    this.#index();
    if (receipts) this.#asking = setInterval(() => this.#ask(), RECEIPT_CHECK_MS).unref();
    this.#running = this.#run();
  }

  /** The number of readings that the server does not have yet. The buffer may keep others, which are stored. */
  get pending() {
    return this.#store.entries.size;
  }

  /** The number of readings that were dropped since this Device exists. */
  get dropped() {
    return this.#dropped;
  }

  /** Put a reading into the buffer. `ts` (now) and `seq` (counted by series) are filled in. */
  async send(reading) {
    if (this.#closed) throw new Error("the device is closed");
    if (this.#store.kept.size && this.pending + this.#store.kept.size >= this.#maxPending) {
      this.#store.dropKept(Math.max(1, Math.floor(this.#maxPending / 100)));
    }
    if (this.#drop === "newest" && this.pending >= this.#maxPending) {
      this.#tellDropped(this.#store.skip(reading), () => {});
      return;
    }
    const entry = this.#store.add(reading);
    this.#waiting.set(entry.number, entry);
    if (this.#receipts) this.#identities.set(this.#identity(entry), entry);
    while (this.pending > this.#maxPending) this.#dropOldest();
    this.#wake();
    // A loop of sends would leave no turn to the connection.
    if (++this.#sends % SENDS_A_TURN === 0) await new Promise(setImmediate);
  }

  /** Wait until no reading is pending, at most `ms`: TimeoutError; DeviceRefused if the server refuses for good. */
  flush(ms = 30_000) {
    return new Promise((resolve, reject) => {
      if (!this.pending) return resolve();
      if (this.#refused) return reject(this.#refused);
      if (this.#closed) return reject(new Error("the device is closed"));
      const end = (error) => {
        clearTimeout(timer);
        this.#flushes.delete(end);
        if (error) reject(error);
        else resolve();
      };
      const late = () => end(new TimeoutError(`${this.pending} readings are not acknowledged after ${ms} ms`));
      const timer = ms > MOST_TIMER_MS ? undefined : setTimeout(late, ms);
      this.#flushes.add(end);
    });
  }

  /** Disconnect, and close the buffer; its readings are sent by the next Device that opens it. */
  async close() {
    if (!this.#closed) {
      this.#closed = true;
      clearInterval(this.#asking);
      clearTimeout(this.#renewal);
      this.#endFlushes(new Error("the device was closed"));
      this.#connection?.close();
      for (const end of this.#pauses) end();
      this.#store.close();
    }
    await this.#running;
  }

  async #run() {
    let attempt = 0;
    let refusals = 0;
    let earlier = null;
    while (!this.#closed) {
      const began = performance.now();
      let askedMs = 0;
      try {
        await this.#session();
      } catch (error) {
        if (this.#closed) return;
        askedMs = error.retryAfterMs ?? 0;
        if (error instanceof DeviceRefused) {
          // That of the newest token says more than that of a text which it replaced.
          if (this.#token.replaceable || !earlier) earlier = error;
          if (this.#token.replace()) continue;
          this.#refuse(earlier);
          earlier = null;
          if (!this.#token.replaceable) return;
          await this.#pause(backoff(refusals++, REFUSED_MS));
          continue;
        }
      }
      if (this.#answeredAt > began) earlier = null;
      attempt = this.#answeredAt > began ? 0 : attempt + 1;
      if (this.#answeredAt > began) refusals = 0;
      await this.#pause(askedMs + backoff(attempt, BACKOFF_MS));
    }
  }

  // Connect, and send until the connection is lost.
  async #session() {
    let text;
    try {
      text = await this.#until(this.#token.current());
    } catch (error) {
      warn(`no token: ${error.message}`);
      throw error;
    }
    if (this.#closed) return;
    this.#learn();
    const auth = this.#receipts ? { token: text, receipts: true } : { token: text };
    const connection = new Connection(this.#url, auth, {
      onLost: () => this.#wake(),
      events: {
        auth_expiring: () => this.#renew(connection),
        auth_expired: () => this.#token.forget(),
        auth_revoked: () => this.#token.forget(),
        command: (command, acknowledge) => this.#command(command, acknowledge),
        stored: (found) => this.#stored(found),
      },
    });
    this.#connection = connection;
    try {
      await connection.opened;
      this.#refused = null;
      this.#scheduleRenewal(connection);
      await this.#sendAll(connection);
    } finally {
      connection.close();
      this.#connection = null;
    }
  }

  async #sendAll(connection) {
    while (!connection.closed && !this.#closed) {
      const batch = this.#batch();
      if (batch.length) {
        const answer = await connection.request("readings", batch.map(({ reading }) => reading));
        for (const entry of batch) entry.sending = false;
        if (this.#closed) return;
        const waitMs = this.#settle(batch, answer);
        if (waitMs && !connection.closed) await this.#pause(waitMs);
      } else {
        await new Promise((resolve) => {
          this.#wake = resolve;
          if (connection.closed || this.#closed) resolve();
        });
      }
    }
  }

  #batch() {
    const batch = [];
    let bytes = 0;
    for (const entry of this.#waiting.values()) {
      bytes += entry.bytes;
      if (batch.length === this.#most || (bytes > MOST_BYTES && batch.length)) break;
      entry.sending = true;
      batch.push(entry);
    }
    return batch;
  }

  // Do what the acknowledgement says; return how many milliseconds to wait before the next event.
  #settle(batch, answer) {
    if (answer !== undefined) this.#answeredAt = performance.now();
    switch (answer?.status) {
      case "accepted":
        this.#accept(batch, []);
        return 0;
      case "partial":
        this.#accept(batch, Array.isArray(answer.rejected) ? answer.rejected : []);
        return 0;
      case "rejected": // as a whole: smaller ones show which reading it is
        if (batch.length === 1) this.#accept(batch, [{ index: 0, code: answer.code, detail: answer.detail }]);
        else this.#most = Math.ceil(batch.length / 2);
        return 0;
      case "retry":
        // `retryAfterMs` of a rate limit is when this event passes; of too much in flight, a smaller one may pass.
        if (answer.code === "busy") this.#most = Math.ceil(batch.length / 2);
        return Math.min(Math.max(Number(answer.retryAfterMs) || 1000, 1), MOST_RETRY_MS) * (1 + Math.random() / 5);
      default:
        return 1000; // no acknowledgement, or none of Tidegate's
    }
  }

  #accept(batch, rejected) {
    this.#most = Math.min(this.#most * 2, MOST_READINGS);
    // What is told may send, drop or close, so everything else is settled before.
    const told = [];
    for (const { index, code, detail } of rejected) {
      const entry = batch[index];
      if (!entry || !this.#store.entries.has(entry.number)) continue;
      this.#leave(entry);
      told.push([entry, code, detail]);
    }
    const others = batch.filter(({ number }) => this.#store.entries.has(number));
    if (!this.#receipts || this.#unsupported) this.#free(others);
    else for (const entry of others) this.#awaitReceipt(entry);
    for (const [entry, code, detail] of told) {
      if (this.#closed) return; // they stay in the file, and are told after the next start
      this.#tellRejected(entry, `a reading was rejected: ${code}: ${detail}`, code, detail);
    }
  }

  #awaitReceipt(entry) {
    this.#waiting.delete(entry.number);
    entry.acceptedAt = entry.askedAt = performance.now();
    this.#accepted.set(entry.number, entry);
  }

  #free(entries, keep = false) {
    const freed = entries.filter(({ number }) => this.#store.entries.has(number));
    for (const entry of freed) this.#leaveOut(entry);
    const kept = keep ? freed.filter(({ missed }) => missed < MOST_MISSED_KEPT) : [];
    this.#store.keep(kept);
    this.#store.free(freed.filter(({ storedAt }) => storedAt === null));
    if (!this.pending) this.#endFlushes(null);
  }

  #leaveOut(entry) {
    this.#waiting.delete(entry.number);
    this.#accepted.delete(entry.number);
    if (this.#receipts) this.#forgetIdentity(entry);
  }

  // Count it as pending no more, before it is told: `onDropped` may send, and then something else is dropped.
  #leave(entry) {
    this.#leaveOut(entry);
    this.#store.leave(entry);
    if (!this.pending) this.#endFlushes(null);
  }

  #dropOldest() {
    let oldest = this.#accepted.values().next().value;
    if (!oldest) {
      for (const entry of this.#waiting.values()) {
        oldest ??= entry;
        if (entry.sending) continue;
        oldest = entry;
        break;
      }
    }
    this.#leave(oldest);
    this.#tellDropped(oldest.reading, () => this.#left(oldest));
  }

  #tellDropped(reading, then) {
    this.#dropped += 1;
    const text = `more than ${this.#maxPending} readings wait: one was dropped`;
    this.#tell("onDropped", text, "dropped", [reading], then);
  }

  #tellRejected(entry, text, code, detail) {
    this.#tell("onRejected", text, code, [entry.reading, code, detail], () => this.#left(entry));
  }

  // Once it is told; if the device was closed meanwhile, it stays in the file.
  #left(entry) {
    if (!this.#closed) this.#store.free([entry]);
  }

  // `then` the reading leaves the file: a process that is killed in between tells it twice, and never not at all.
  #tell(name, text, kind, values, then) {
    if (typeof this[name] !== "function") {
      warn(text, kind);
      return then();
    }
    const told = this.#told(name, values);
    if (told === null || this.#awaited >= MOST_AWAITED) return then();
    this.#awaited += 1;
    told.then(() => {
      this.#awaited -= 1;
      then();
    });
  }

  // Call the program's function; return a promise of its end, or null if it has ended.
  #told(name, values) {
    const failed = (error) => warn(`${name} failed: ${error?.stack ?? error}`, name);
    try {
      const result = this[name](...values);
      return typeof result?.then === "function" ? Promise.resolve(result).catch(failed) : null;
    } catch (error) {
      failed(error);
      return null;
    }
  }

  #refuse(error) {
    this.#refused = error;
    warn(`the server refuses this device for good: ${error.message}. Its readings stay in the buffer.`);
    this.#endFlushes(error);
  }

  #endFlushes(error) {
    for (const end of [...this.#flushes]) end(error);
  }

  // Wait, until the device is closed.
  #pause(ms) {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#pauses.delete(end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.#pauses.add(end);
      if (this.#closed) end();
    });
  }

  // What the promise gives, or undefined once the device is closed.
  #until(promise) {
    return new Promise((resolve, reject) => {
      this.#pauses.add(resolve);
      promise.then(resolve, reject).finally(() => this.#pauses.delete(resolve));
    });
  }

  #learn() {
    if (this.#closed) return;
    const before = this.#store.sensorType;
    this.#store.learn(this.#token.claims.sensorType);
    if (before !== this.#store.sensorType) this.#index();
  }

  async #renew(connection) {
    if (this.#renewing) return;
    this.#renewing = true;
    try {
      while (!connection.closed) {
        if (await this.#renewed(connection)) break;
        await this.#pause(RENEW_AGAIN_MS);
      }
    } finally {
      this.#renewing = false;
    }
    if (!connection.closed) this.#scheduleRenewal(connection);
  }

  // Whether there is nothing left to try.
  async #renewed(connection) {
    try {
      const text = await this.#token.renewed();
      const answer = await connection.request("authenticate", { token: text });
      if (answer?.status === "rejected") warn(`the gateway takes no new token: ${answer.code}: ${answer.detail}`);
      if (answer?.status !== "accepted") return answer?.status === "rejected";
      if (this.#closed) return true;
      this.#token.accept(text);
      this.#learn();
      return true;
    } catch (error) {
      return error instanceof DeviceRefused; // the session lasts as long as its token
    }
  }

  #scheduleRenewal(connection) {
    clearTimeout(this.#renewal);
    const ms = this.#token.renewalMs;
    if (ms !== null && !this.#closed) this.#renewal = setTimeout(() => this.#renew(connection), ms).unref();
  }

  async #command(command, acknowledge) {
    const answer = await this.#commands.answer(command, this.onCommand);
    if (typeof acknowledge === "function") acknowledge(answer);
  }

  #identity({ reading: { sensorType = this.#store.sensorType, ts, seq } }) {
    return `${sensorType} ${millisecondsOf(ts)} ${seq}`;
  }

  #forgetIdentity(entry) {
    const identity = this.#identity(entry);
    if (this.#identities.get(identity) === entry) this.#identities.delete(identity);
  }

  #index() {
    if (!this.#receipts) return;
    this.#identities.clear();
    for (const entry of this.#store.entries.values()) this.#identities.set(this.#identity(entry), entry);
  }

  // Free or keep what is stored: `items` as in the event `stored`.
  #stored(found) {
    if (this.#closed || !this.#receipts) return;
    const identities = identitiesOf(found);
    if (identities.length) this.#receiptsHaveCome = true;
    const entries = identities.map((identity) => this.#identities.get(identity));
    this.#free([...new Set(entries)].filter(Boolean), this.#keepStoredMs > 0);
  }

  #ask() {
    this.#askForReceipts();
    this.#askAboutKept();
  }

  // Receipts may be lost with a connection: ask for those that are late.
  async #askForReceipts() {
    const late = [];
    const now = performance.now();
    for (const entry of this.#accepted.values()) {
      if (now - entry.askedAt >= RECEIPT_MS && late.push(entry) === MOST_READINGS) break;
    }
    if (!late.length || this.#askedNow || !this.#token.text) return;
    this.#askedNow = true;
    try {
      const found = await this.#question(late, !this.#receiptsHaveCome);
      if (found === null) this.#freeWithoutReceipts();
      else this.#stored(found);
      this.#sendAgain(late.filter((entry) => this.#isMissed(entry)));
    } catch (error) {
      warn(`receipts cannot be asked for: ${error.message}`, "receipts");
    } finally {
      this.#askedNow = false;
    }
    if (!this.#closed) this.#wake();
  }

  #freeWithoutReceipts() {
    warn("this server sends no receipts: readings are freed when they are accepted");
    this.#unsupported = true;
    this.#free([...this.#accepted.values()]);
  }

  // Return what the server says is stored of these; null: it has no such call, if that `mayBe`.
  async #question(entries, mayBe) {
    const answer = await post(`${this.#url}/readings/stored`, this.#token.text, JSON.stringify(this.#asked(entries)));
    if (mayBe && [404, 405, 501].includes(answer.status)) return null;
    if (!answer.ok) throw new NotNow(answer.status, answer.headers.get("retry-after"));
    return answer.json();
  }

  #asked(entries) {
    const bySensorType = new Map();
    for (const entry of entries) {
      const { sensorType = this.#store.sensorType, ts, seq } = entry.reading;
      if (!bySensorType.has(sensorType)) bySensorType.set(sensorType, []);
      bySensorType.get(sensorType).push([millisecondsOf(ts), seq]);
    }
    return { items: [...bySensorType].map(([sensorType, readings]) => ({ sensorType, readings })) };
  }

  #isMissed(entry) {
    if (!this.#accepted.has(entry.number)) return false;
    const now = performance.now();
    entry.askedAt = now;
    return now - entry.acceptedAt >= Math.min(RESEND_MS.least * 2 ** Math.min(entry.missed, 20), RESEND_MS.most);
  }

  #sendAgain(entries) {
    if (!entries.length || this.#closed) return;
    this.#store.miss(entries);
    for (const entry of entries) {
      this.#accepted.delete(entry.number);
      if (entry.missed <= MOST_MISSED) {
        this.#waiting.set(entry.number, entry);
        this.#identities.set(this.#identity(entry), entry);
        continue;
      }
      const detail = `accepted ${entry.missed} times and never stored`;
      this.#leave(entry);
      this.#tellRejected(entry, `a reading was given up: ${detail}`, "not_stored", detail);
    }
  }

  // The server may have been restored from a backup: ask about kept readings once more before they are freed.
  async #askAboutKept() {
    if (this.#askingAboutKept || performance.now() < this.#askAboutKeptAt || !this.#token.text) return;
    this.#askingAboutKept = true;
    try {
      for (let some = this.#nextKept(); some.length && !this.#closed; some = this.#nextKept()) {
        this.#settleKept(some, await this.#question(some, !this.#receiptsHaveCome));
      }
      this.#round += 1;
      this.#roundUntil = 0;
      this.#askAboutKeptAt = performance.now() + this.#keepStoredMs * TOGETHER * (0.5 + Math.random() / 2);
    } catch (error) {
      warn(`stored readings cannot be asked about: ${error.message}`, "kept");
      const waitMs = Math.max(NO_ANSWER_MS * (0.5 + Math.random() / 2), error.retryAfterMs ?? 0);
      this.#askAboutKeptAt = performance.now() + waitMs;
    } finally {
      this.#askingAboutKept = false;
    }
  }

  get #keptUntil() {
    return this.#store.clock - this.#keepStoredMs / 1000;
  }

  #nextKept() {
    const some = [];
    const until = Math.max(this.#keptUntil, this.#roundUntil);
    for (const entry of this.#store.kept.values()) {
      if (entry.storedAt > until) break;
      if (entry.round !== this.#round && some.push(entry) === MOST_READINGS) break;
    }
    return some;
  }

  #settleKept(entries, found) {
    if (this.#closed) return;
    const stored = new Set(identitiesOf(found));
    const isThere = (entry) => found === null || stored.has(this.#identity(entry));
    const still = entries.filter(({ number }) => this.#store.kept.has(number));
    const missing = still.filter((entry) => !isThere(entry));
    for (const entry of still) entry.round = this.#round;
    this.#store.free(still.filter((entry) => isThere(entry) && (found === null || entry.storedAt <= this.#keptUntil)));
    if (!missing.length) return;
    // A sign of a restored server: all others are asked about at once.
    this.#roundUntil = this.#store.clock;
    warn(`${missing.length} readings were stored and are not any more: they are sent again`, "restored");
    this.#sendAgain(missing);
    this.#wake();
  }
}

// `sensorType ts seq` of each reading that is listed.
function identitiesOf(found) {
  const items = Array.isArray(found?.items) ? found.items : [];
  return items.flatMap(({ sensorType, readings }) =>
    (Array.isArray(readings) ? readings : []).map(([ts, seq]) => `${sensorType} ${ts} ${seq}`),
  );
}

// Grows from the least to the most, and is anything between half of that and all of it.
function backoff(attempt, { least, most }) {
  return Math.min(least * 2 ** Math.min(attempt, 20), most) * (0.5 + Math.random() / 2);
}

function checked(options) {
  if (options === null || typeof options !== "object") throw new TypeError("a Device takes { url, token, … }");
  for (const name of Object.keys(options)) if (!OPTIONS.has(name)) throw new TypeError(`no such option: ${name}`);
  const { url, token, buffer = "readings.log", receipts = false, maxPending = 100_000, drop = "oldest" } = options;
  const { keepStoredMs = 600_000 } = options;
  const { origin, protocol } = new URL(url);
  if (!["http:", "https:"].includes(protocol)) throw new TypeError("url begins with http:// or https://");
  if (typeof token !== "function" && (typeof token !== "string" || !token)) {
    throw new TypeError("token is a text or an async function that returns one");
  }
  if (buffer !== null && (typeof buffer !== "string" || !buffer)) throw new TypeError("buffer is a file, or null");
  if (typeof receipts !== "boolean") throw new TypeError("receipts is true or false");
  if (!Number.isSafeInteger(maxPending) || maxPending < 1) throw new TypeError("maxPending is 1 or more");
  if (!["oldest", "newest"].includes(drop)) throw new TypeError('drop is "oldest" or "newest"');
  if (!Number.isFinite(keepStoredMs) || keepStoredMs < 0) throw new TypeError("keepStoredMs is 0 or more");
  return { url: origin, token, buffer, receipts, maxPending, drop, keepStoredMs };
}

module.exports = { Device, DeviceRefused, TimeoutError, BufferInUse };
