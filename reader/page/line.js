// One chosen series: what was loaded of it, what is heard of it, and what the live feed has left out.
//
// The feed brings the newest reading of 100 ms. So while a line is live, the readings since the last time up to which
// all were known are asked for, and merged by (ts, seq). What came late is found by going through the window again.

import * as history from "./history.js";
import { now } from "./clock.js";

// Loaded singly in the live window; with more than MOST_RAW it goes on in buckets.
const MOST_LOADED = 5000;
const MOST_RAW = 6000;
// Readings of one series may be stored in another order than they were measured in: some of what is known is asked again.
const OVERLAP_MS = 3000;
// How often at most where the feed leaves readings out, and where it does not; and how often at least. What was left out
// is drawn within a second: up to 0.3 s pass until it is stored, 0.1 s each for the answer and for drawing it.
const ASK_EVERY_MS = { missing: 350, complete: 1000 };
const ASK_QUIET_MS = 10_000;
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
    this.heardMeanwhile = [];
    this.#rest();
  }

  #rest() {
    this.known = -Infinity; // up to here, every reading is known
    this.late = false;
    this.cursor = undefined;
    this.askedAt = -Infinity;
    this.missedAt = -Infinity;
    this.heardTo = null; // the time of the newest that was heard, and how far such times usually are apart
    this.usualMs = null;
    this.heardSince = false;
    this.aheadAt = performance.now();
    this.from = -Infinity;
  }

  get loaded() {
    return this.points !== null || this.buckets !== null;
  }

  get count() {
    return this.points?.length ?? this.buckets?.reduce((sum, one) => sum + one.count, 0) ?? 0;
  }

  // Load a stretch of time: {from, to, width, live, moving, signal}; what was shown stays until the answer is there.
  async load({ from, to, width, live, moving, signal }) {
    this.heardMeanwhile = [];
    this.#rest();
    this.from = from;
    const end = moving ? Math.min(to, now()) + history.AHEAD_MS : to;
    const most = live ? MOST_LOADED : undefined;
    const [found, ahead] = await Promise.all([
      history.load(this, from, end, width, { most, many: this.everyMs > 0, signal }),
      moving ? history.ahead(this, signal) : null,
    ]);
    if (signal?.aborted) return;
    Object.assign(this, found, { ahead, width });
    this.#knownUntil(found.last);
    for (const point of this.heardMeanwhile) this.#add(point);
  }

  // A reading of the live feed.
  heard(reading) {
    const point = history.point(reading);
    if (point.v === null) return;
    if (point.t >= now() + history.AHEAD_MS) {
      const before = this.ahead ?? { count: 0, to: 0 };
      this.ahead = { count: before.count + 1, to: Math.max(before.to, point.t) };
      return;
    }
    this.heardSince = true;
    this.#lookForGap(point.t);
    if (point.t >= this.from && point.t < this.known - OVERLAP_MS) this.late = true;
    this.heardMeanwhile.push(point);
    if (this.heardMeanwhile.length > MOST_RAW) this.heardMeanwhile.shift();
    if (this.loaded) this.#add(point);
  }

  // One that comes half as late again as they usually do may be the second one: of two in 100 ms the feed leaves one out.
  #lookForGap(t) {
    if (this.heardTo !== null && t > this.heardTo) {
      const gap = t - this.heardTo;
      if (gap > 1.5 * this.usualMs && this.usualMs !== null) this.missedAt = performance.now();
      this.usualMs = this.usualMs === null ? gap : 0.9 * this.usualMs + 0.1 * gap;
    }
    if (!(t <= this.heardTo)) this.heardTo = t;
  }

  // Whether there is something to ask for.
  get due() {
    if (!this.loaded || this.asking) return false;
    const since = performance.now() - this.askedAt;
    const missing = performance.now() - this.missedAt < ASK_QUIET_MS;
    const often = ASK_EVERY_MS[missing ? "missing" : "complete"];
    return since >= often && (this.heardSince || this.late || Boolean(this.cursor) || since >= ASK_QUIET_MS);
  }

  // Ask for what was left out in the window that begins here.
  async catchUp(from, signal) {
    this.asking = true;
    this.askedAt = performance.now();
    this.heardSince = false;
    this.heardMeanwhile = [];
    try {
      if (this.ahead && performance.now() - this.aheadAt > AHEAD_EVERY_MS) await this.#lookAhead(signal);
      else if (this.points && this.points.length <= MOST_RAW) await this.#catchUpReadings(from, signal);
      else if (this.points) await this.#loadAgain(from, true, signal);
      else await this.#catchUpBuckets(from, signal);
    } finally {
      this.asking = false;
    }
  }

  async #lookAhead(signal) {
    this.aheadAt = performance.now();
    this.heardSince = true; // what was left out is asked for the next time
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
    for (const point of this.heardMeanwhile) this.#add(point);
    this.#knownUntil(this.last);
    // Few enough by now to be shown one by one.
    if (this.count < MOST_LOADED / 2) await this.#loadAgain(windowFrom, false, signal);
  }

  async #loadAgain(from, many, signal) {
    const options = { most: MOST_LOADED, many, signal };
    const found = await history.load(this, from, now() + history.AHEAD_MS, this.width, options);
    if (signal?.aborted) return;
    this.cursor = undefined;
    Object.assign(this, found);
    for (const point of this.heardMeanwhile) this.#add(point);
  }

  #knownUntil(last) {
    if (last) this.known = Math.min(last.t, now());
  }

  // What lies before the window goes, so that a line that is live for hours is no longer than its window.
  trim(from) {
    this.from = from;
    const list = this.points ?? this.buckets;
    const gone = (one) => one.t + (one.every ?? 0) < from;
    let count = 0;
    while (count < list?.length && gone(list[count])) count += 1;
    if (count) list.splice(0, count);
  }

  #add(point) {
    if (!this.last || later(point, this.last) > 0) this.last = point;
    if (this.points) insert(this.points, point);
    else addToBuckets(this.buckets, point, this.everyMs);
  }
}

const later = (a, b) => a.t - b.t || a.seq - b.seq;

// Where it belongs, in place of the same one.
function insert(points, point) {
  const at = placeOf(points, (one) => later(one, point) < 0);
  const same = at < points.length && later(points[at], point) === 0;
  points.splice(at, same ? 1 : 0, point);
}

// How many of a sorted list come before.
function placeOf(list, before) {
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
  const at = placeOf(buckets, (one) => one.t < start);
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
