// The time range shown: moving with the clock, everything, or fixed.

import { now } from "./clock.js";
import { ends } from "./history.js";

export const LIVE_MS = 5 * 60_000;
const LENGTHS_MS = { live: LIVE_MS, "1h": 3_600_000, "24h": 86_400_000, "7d": 7 * 86_400_000 };
// How often a moving range is reloaded: every few pixels; everything as often as a day.
const REFRESH_MS = { "1h": 10_000, "24h": 60_000, "7d": 300_000, all: 60_000 };
const LEAST_MS = 20;
// The years 1 to 9999, which every time format covers; URLs and navigation are limited to them.
const FIRST_MS = Date.parse("0001-01-01T00:00:00Z");
const LAST_MS = Date.parse("9999-12-31T00:00:00Z");
const MOVES = { earlier: [-0.5, -0.5], later: [0.5, 0.5], in: [0.25, -0.25], out: [-0.5, 0.5] };

export class Span {
  constructor({ span, from, to }) {
    this.set(span, from, to);
  }

  set(span, from, to) {
    this.name = span;
    if (span !== "range") this.preset = span;
    this.preset ??= "live";
    if (span === "range") [this.from, this.to] = [Math.min(from, to), Math.max(from, to)].map(within);
    else this.moveOn();
    this.to = Math.max(this.to, this.from + LEAST_MS);
    this.asOf = now();
  }

  get live() {
    return this.name === "live";
  }

  // Whether the range moves with time.
  get moving() {
    return this.name !== "range";
  }

  get length() {
    return LENGTHS_MS[this.name] ?? this.to - this.from;
  }

  get dueAt() {
    return this.asOf + (REFRESH_MS[this.name] ?? Infinity);
  }

  // Move to now. "all" has its own ends.
  moveOn() {
    if (!this.moving) return;
    this.to = this.asOf = now();
    this.from = this.to - (LENGTHS_MS[this.name] ?? LIVE_MS);
  }

  // Cover everything of some lines, with a margin at the end.
  async around(lines) {
    const found = (await Promise.all(lines.map((line) => ends(line)))).filter(Boolean);
    this.asOf = now();
    if (!found.length || this.name !== "all") return;
    const [from, last] = [Math.min(...found.map((one) => one[0])), Math.max(...found.map((one) => one[1]))];
    [this.from, this.to] = [from, last + Math.max(1000, (last - from) / 100)];
  }

  moved(how) {
    const length = this.to - this.from;
    return [this.from + MOVES[how][0] * length, this.to + MOVES[how][1] * length];
  }
}

const within = (ms) => Math.min(Math.max(ms, FIRST_MS), LAST_MS);
