// Splits a line into parts to draw: one for each kind of value, and for each unit of its numbers.
//
// A part is {line, kind, unit, points, everyMs}; kind is "number", "boolean" or "text". Its points:
//   number   {t, v, low, high, count, first, last}
//   boolean  {t, v, on, count}
//   text     {t, v, top: [[text, n]…], count}
// A point of one reading has `missing` if readings in front of it are. t is a reading's time; for a bucket of numbers its middle, else its start.

import { decimal, number, share } from "./format.js";
import { afterMissing } from "./gaps.js";

// A mean is computed: more digits are meaningless.
const MEAN_DIGITS = 10;
const KINDS = { boolean: "boolean", string: "text", number: "number", bigint: "number" };

export function partsOf(line) {
  const found = line.points ? fromReadings(line) : fromBuckets(line);
  return found.map((part) => ({ line, everyMs: line.everyMs, ...part }));
}

function fromReadings(line) {
  const parts = new Map();
  const follows = afterMissing(line.points, line.known);
  for (const reading of line.points) {
    const { t, v, unit: pointUnit } = reading;
    const kind = KINDS[typeof v];
    if (kind === undefined) continue;
    const unit = kind === "number" ? (pointUnit ?? "") : "";
    const key = `${kind}\n${unit}`;
    if (!parts.has(key)) parts.set(key, { kind, unit, points: [] });
    parts.get(key).points.push({ ...single(kind, t, v), missing: follows.has(reading) });
  }
  return [...parts.values()];
}

function single(kind, t, v) {
  if (kind === "number") return { t, v, low: v, high: v, count: 1, first: v, last: v };
  if (kind === "boolean") return { t, v, on: Number(v), count: 1 };
  return { t, v, top: [[v, 1]], count: 1 };
}

function fromBuckets(line) {
  const unit = typeof line.last?.v === "number" || typeof line.last?.v === "bigint" ? line.last.unit : line.unit;
  const parts = [
    { kind: "number", unit: unit ?? "", points: line.buckets.filter((one) => one.numbers).map(ofNumbers) },
    { kind: "boolean", unit: "", points: line.buckets.filter((one) => one.booleans).map(ofBooleans) },
    { kind: "text", unit: "", points: line.buckets.filter((one) => one.texts).map(ofTexts) },
  ];
  return parts.filter((part) => part.points.length);
}

function ofNumbers({ t, every, numbers }) {
  const { min: low, max: high, avg, first, last, count } = numbers;
  const v = low === high ? low : (avg ?? Number(low) / 2 + Number(high) / 2);
  return { t: t + every / 2, v, low, high, count, first, last };
}

const ofBooleans = ({ t, booleans: { on, count, last } }) => ({ t, v: last, on, count });
const ofTexts = ({ t, texts: { top, count } }) => ({ t, v: top[0][0], top, count });

// The statistics of a part: {latest, at} and {low, high, mean}, {on} or {states}, the latter formatted.
export function statisticsOf(part) {
  const { line, kind, points } = part;
  const end = points.at(-1);
  const last = line.last && KINDS[typeof line.last.v] === kind && part.everyMs ? line.last : null;
  const stats = { latest: last ? last.v : (end.last ?? end.v), at: last ? last.t : end.t };
  const count = points.reduce((sum, one) => sum + one.count, 0);
  if (kind === "number") return { ...stats, ...numbersOf(points, count) };
  if (kind === "boolean") return { ...stats, on: share(points.reduce((sum, one) => sum + one.on, 0) / count) };
  return { ...stats, states: statesOf(points, count) };
}

function numbersOf(points, count) {
  let { low, high } = points[0];
  for (const one of points) {
    if (one.low < low) low = one.low;
    if (one.high > high) high = one.high;
  }
  return { low: number(low), high: number(high), mean: low === high ? number(low) : meanText(points, count, low, high) };
}

// One decimal place more than the measured values, as far as meaningful.
function meanText(points, count, low, high) {
  if (points.some((one) => typeof one.v === "bigint")) {
    const sum = points.reduce((all, one) => all + roundOf(one.v) * BigInt(one.count), 0n);
    return number(sum / BigInt(count));
  }
  const mean = points.reduce((sum, one) => sum + (Number(one.v) / count) * one.count, 0);
  const size = Math.max(Math.abs(Number(low)), Math.abs(Number(high)));
  if (size >= 1e15 || size < 1e-6) return number(Number(mean.toPrecision(7)));
  const most = Math.max(2, MEAN_DIGITS - 1 - Math.floor(Math.log10(size)));
  const measured = Math.max(places(low), places(high), ...lastPlaces(points));
  return decimal(mean, Math.min(most, measured + (measured ? 1 : 2)));
}

const roundOf = (v) => (typeof v === "bigint" ? v : BigInt(Math.round(v)));
const lastPlaces = (points) => points.slice(-5).map((one) => places(one.last));

function places(of) {
  const text = String(of);
  const [digits, power] = text.split("e");
  return Math.max(0, (digits.split(".")[1]?.length ?? 0) - Number(power ?? 0));
}

// [[text, its share of the readings]…], most frequent first.
function statesOf(points, count) {
  const sums = new Map();
  for (const { top } of points) for (const [text, times] of top) sums.set(text, (sums.get(text) ?? 0) + times);
  return [...sums].sort((a, b) => b[1] - a[1]).map(([text, times]) => [text, share(times / count)]);
}
