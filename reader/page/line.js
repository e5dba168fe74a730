// One selected series: the readings loaded, those received live, and those omitted by the live feed.
//
// The feed sends the newest reading of each 100 ms. So while a line is live, the readings since the time up to which
// all are known are queried and merged by (ts, seq). Late readings are found by querying the whole window again.

import * as history from "./history.js";
import { now } from "./clock.js";

// The most readings loaded individually in the live window; beyond MAX_RAW the line continues in buckets.
const MAX_LOADED = 5000;
const MAX_RAW = 6000;
// Readings of a series may be stored out of order: queries overlap what is known by this time.
const OVERLAP_MS = 3000;
// The shortest interval of queries while the feed omits readings and while it does not, and the longest. Omitted
// readings are drawn within a second: up to 0.3 s until stored, 0.1 s each for the response and for drawing.
const QUERY_EVERY_MS = { missing: 350, complete: 1000 };
const QUERY_QUIET_MS = 10_000;
const AHEAD_EVERY_MS = 15_000;

export class Line {
  constructor(key, number) {
    const [device, sensorType] = key.split("\n");
    Object.assign(this, { key, number, device, sensorType });
    this.points = null;
    this.buckets = null;
    this.everyMs = 0;
    this.last = null;
    this.ahead = null;
    this.completeness = null;
    this.receivedMeanwhile = [];
    this.#reset();
  }

  #reset() {
    this.known = -Infinity; // every reading up to here is known
    this.late = false;
    this.cursor = undefined;
    this.queriedAt = -Infinity;
    this.missedAt = -Infinity;
    this.newestReceivedTs = null; // ts of the newest reading received live, and the usual step between them
    this.typicalStepMs = null;
    this.receivedSince = false;
    this.aheadAt = performance.now();
    this.from = -Infinity;
  }

  get loaded() {
    return this.points !== null || this.buckets !== null;
  }

  get count() {
    return this.points?.length ?? this.buckets?.reduce((sum, one) => sum + one.count, 0) ?? 0;
  }

  // Load a time range: {from, to, width, live, moving, signal}; the old points stay until the response arrives.
  async load({ from, to, width, live, moving, signal }) {
    this.receivedMeanwhile = [];
    this.#reset();
    this.from = from;
    const end = moving ? Math.min(to, now()) + history.AHEAD_MS : to;
    const maxReadings = live ? MAX_LOADED : undefined;
    const [found, ahead] = await Promise.all([
      history.load(this, from, end, width, { maxReadings, preferBuckets: this.everyMs > 0, signal }),
      moving ? history.ahead(this, signal) : null,
    ]);
    if (signal?.aborted) return;
    Object.assign(this, found, { ahead, width });
    this.#knownUntil(found.last);
    for (const point of this.receivedMeanwhile) this.#add(point);
  }

  // Find out how complete a range is; a failure leaves that unknown.
  async loadCompleteness(range, signal) {
    this.completeness = null;
    if (!this.count) return;
    try {
      this.completeness = await history.completeness(this, range, signal);
    } catch {
      // The chart does not depend on it.
    }
  }

  // A reading of the live feed.
  receive(reading) {
    const point = history.point(reading);
    if (point.v === null) return;
    if (point.t >= now() + history.AHEAD_MS) {
      const before = this.ahead ?? { count: 0, to: 0 };
      this.ahead = { count: before.count + 1, to: Math.max(before.to, point.t) };
      return;
    }
    this.receivedSince = true;
    this.#detectGap(point.t);
    if (point.t >= this.from && point.t < this.known - OVERLAP_MS) this.late = true;
    this.receivedMeanwhile.push(point);
    if (this.receivedMeanwhile.length > MAX_RAW) this.receivedMeanwhile.shift();
    if (this.loaded) this.#add(point);
  }

  // A step 1.5 times the usual one may hide a reading: of two within 100 ms, the feed sends one.
  #detectGap(t) {
    if (this.newestReceivedTs !== null && t > this.newestReceivedTs) {
      const gap = t - this.newestReceivedTs;
      if (gap > 1.5 * this.typicalStepMs && this.typicalStepMs !== null) this.missedAt = performance.now();
      this.typicalStepMs = this.typicalStepMs === null ? gap : 0.9 * this.typicalStepMs + 0.1 * gap;
    }
    if (!(t <= this.newestReceivedTs)) this.newestReceivedTs = t;
  }

  // Whether a query is due.
  get due() {
    if (!this.loaded || this.querying) return false;
    const since = performance.now() - this.queriedAt;
    const missing = performance.now() - this.missedAt < QUERY_QUIET_MS;
    const often = QUERY_EVERY_MS[missing ? "missing" : "complete"];
    return since >= often && (this.receivedSince || this.late || Boolean(this.cursor) || since >= QUERY_QUIET_MS);
  }

  // Query the readings omitted by the feed in the window that starts at `from`.
  async catchUp(from, signal) {
    this.querying = true;
    this.queriedAt = performance.now();
    this.receivedSince = false;
    this.receivedMeanwhile = [];
    try {
      if (this.ahead && performance.now() - this.aheadAt > AHEAD_EVERY_MS) await this.#refreshAhead(signal);
      else if (this.points && this.points.length <= MAX_RAW) await this.#catchUpReadings(from, signal);
      else if (this.points) await this.#loadAgain(from, true, signal);
      else await this.#catchUpBuckets(from, signal);
    } finally {
      this.querying = false;
    }
  }

  async #refreshAhead(signal) {
    this.aheadAt = performance.now();
    this.receivedSince = true; // omitted readings are queried next time
    this.ahead = await history.ahead(this, signal);
  }

  async #catchUpReadings(windowFrom, signal) {
    if (this.late && !this.cursor) [this.known, this.late] = [-Infinity, false];
    const range = { from: Math.max(windowFrom, this.known - OVERLAP_MS), to: now() + history.AHEAD_MS };
    const { points, cursor } = await history.page(this, { ...range, cursor: this.cursor }, signal);
    if (signal?.aborted || !this.points) return;
    const before = this.points.length;
    for (const point of points) this.#add(point);
    if (this.points.length > before) this.missedAt = performance.now();
    this.cursor = cursor;
    if (!cursor) this.#knownUntil(this.points.at(-1));
  }

  async #catchUpBuckets(windowFrom, signal) {
    const since = this.late ? windowFrom : Math.max(windowFrom, this.known - OVERLAP_MS);
    this.late = false;
    const from = Math.floor(since / this.everyMs) * this.everyMs;
    const found = await history.buckets(this, from, now() + history.AHEAD_MS, this.everyMs, signal);
    if (signal?.aborted || !this.buckets) return;
    this.buckets = [...this.buckets.filter((one) => one.t < from), ...found];
    for (const point of this.receivedMeanwhile) this.#add(point);
    this.#knownUntil(this.last);
    // Few enough by now to show individually.
    if (this.count < MAX_LOADED / 2) await this.#loadAgain(windowFrom, false, signal);
  }

  async #loadAgain(from, preferBuckets, signal) {
    const options = { maxReadings: MAX_LOADED, preferBuckets, signal };
    const found = await history.load(this, from, now() + history.AHEAD_MS, this.width, options);
    if (signal?.aborted) return;
    this.cursor = undefined;
    Object.assign(this, found);
    for (const point of this.receivedMeanwhile) this.#add(point);
  }

  #knownUntil(last) {
    if (last) this.known = Math.min(last.t, now());
  }

  // Drop what lies before the window, so that a line live for hours stays bounded.
  trim(from) {
    this.from = from;
    const list = this.points ?? this.buckets;
    const beforeWindow = (one) => one.t + (one.every ?? 0) < from;
    let count = 0;
    while (count < list?.length && beforeWindow(list[count])) count += 1;
    if (count) list.splice(0, count);
  }

  #add(point) {
    if (!this.last || later(point, this.last) > 0) this.last = point;
    if (this.points) insert(this.points, point);
    else addToBuckets(this.buckets, point, this.everyMs);
  }
}

const later = (a, b) => a.t - b.t || a.seq - b.seq;

// Insert in order, replacing an equal one.
function insert(points, point) {
  const at = countBefore(points, (one) => later(one, point) < 0);
  const same = at < points.length && later(points[at], point) === 0;
  points.splice(at, same ? 1 : 0, point);
}

// How many elements of a sorted list satisfy `before`.
function countBefore(list, before) {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (before(list[middle])) low = middle + 1;
    else high = middle;
  }
  return low;
}

function addToBuckets(buckets, { t, v }, every) {
  const start = Math.floor(t / every) * every;
  const at = countBefore(buckets, (one) => one.t < start);
  if (buckets[at]?.t !== start) buckets.splice(at, 0, { t: start, every, count: 0 });
  const bucket = buckets[at];
  bucket.count += 1;
  if (typeof v === "boolean") {
    const booleans = (bucket.booleans ??= { on: 0, count: 0, first: v });
    booleans.on += Number(v);
    booleans.count += 1;
    booleans.last = v;
  } else if (typeof v === "string") {
    const texts = (bucket.texts ??= { count: 0, first: v, top: [] });
    texts.count += 1;
    texts.last = v;
    const known = texts.top.find(([text]) => text === v);
    if (known) known[1] += 1;
    else texts.top.push([v, 1]);
    texts.top.sort((a, b) => b[1] - a[1]);
  } else {
    const numbers = (bucket.numbers ??= { min: v, max: v, avg: Number(v), first: v, count: 0 });
    numbers.count += 1;
    numbers.last = v;
    if (v < numbers.min) numbers.min = v;
    if (v > numbers.max) numbers.max = v;
    if (numbers.avg !== null) numbers.avg += (Number(v) - numbers.avg) / numbers.count;
  }
}
