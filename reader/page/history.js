// What the server tells of one series: every reading where they are few, else buckets as wide as two pixels.
//
// A point is {t, seq, v, unit}: t in milliseconds since 1970, v as it was measured (number, BigInt, boolean, text).
// A bucket is {t, every, count, numbers?, booleans?, texts?} as `GET /readings/buckets?values=all` says, t its beginning.

import { now } from "./clock.js";
import { parse } from "./exact.js";
import { get } from "./session.js";

const PAGE = 1000;
const STEPS_MS = [
  10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5,
  432e5, 864e5, 1728e5, 6048e5,
];
// As `GET /series/search` has it: what is further ahead of the server's clock is no reading of now.
export const AHEAD_MS = 60_000;

export function bucketMs(fromMs, toMs, width) {
  const wanted = (toMs - fromMs) / Math.max(50, width / 2);
  return STEPS_MS.find((step) => step >= wanted) ?? Math.ceil(wanted / 864e5) * 864e5;
}

async function ask(path, { device, sensorType }, query, signal) {
  try {
    return parse(await (await get(path, { device, sensorType, ...query }, { signal })).text());
  } catch (error) {
    if (error.status === 404) return { items: [] }; // nothing was ever stored of this device
    throw error;
  }
}

export function point(reading) {
  return { t: Date.parse(reading.ts), seq: reading.seq, v: reading.value, unit: reading.unit };
}

// One page of readings: {points, cursor}; without a cursor it is the last.
export async function page(series, { from, to, cursor, order, limit = PAGE }, signal) {
  const query = { from: floor(from), to: to === undefined ? undefined : Math.ceil(to), cursor, order, limit };
  const { items, nextCursor } = await ask("/readings", series, query, signal);
  return { points: items.filter((item) => item.value !== null).map(point), cursor: nextCursor };
}

export async function buckets(series, from, to, every, signal) {
  const query = { from: floor(from), to: Math.ceil(to), every: `${every}ms`, values: "all" };
  const { items } = await ask("/readings/buckets", series, query, signal);
  return items.map((item) => ({ ...item, t: Date.parse(item.ts), every }));
}

// Everything of a stretch: {points, buckets, everyMs, last}. `most` readings are loaded singly, else buckets; one of
// `points` and `buckets` is null. `last` is the last reading, with all that a bucket does not tell of it.
export async function load(series, from, to, width, { most = PAGE, many = false, signal }) {
  const points = many ? null : await readings(series, from, to, most, signal);
  if (points) return { points, buckets: null, everyMs: 0, last: points.at(-1) ?? null };
  const everyMs = bucketMs(from, to, width);
  const [found, last] = await Promise.all([
    buckets(series, from, to, everyMs, signal),
    page(series, { from, to, order: "desc", limit: 1 }, signal),
  ]);
  if (many && found.reduce((sum, one) => sum + one.count, 0) <= most) {
    return load(series, from, to, width, { most, signal });
  }
  return { points: null, buckets: found, everyMs, last: last.points[0] ?? null };
}

// Null when there are more.
async function readings(series, from, to, most, signal) {
  const points = [];
  let cursor;
  do {
    const next = await page(series, { from, to, cursor }, signal);
    points.push(...next.points);
    cursor = next.cursor;
  } while (cursor && points.length < most);
  return cursor ? null : points;
}

// When a series begins and ends, what is ahead left out; null where there is nothing.
export async function ends(series) {
  const to = now() + AHEAD_MS;
  const [first, last] = await Promise.all(
    ["asc", "desc"].map((order) => page(series, { to, order, limit: 1 })),
  );
  return first.points.length && last.points.length ? [first.points[0].t, last.points[0].t] : null;
}

// What is ahead of now: {count, to}, or null.
export async function ahead(series, signal) {
  const from = now() + AHEAD_MS;
  const { points } = await page(series, { from, order: "desc", limit: 1 }, signal);
  if (!points.length) return null;
  const to = points[0].t;
  const found = await buckets(series, from, to + 1, Math.max(1000, Math.ceil((to - from) / 1000) * 1000), signal);
  return { count: found.reduce((sum, one) => sum + one.count, 0), to };
}

const floor = (ms) => (ms === undefined ? undefined : Math.floor(ms));
