// Loads one series from the server: every reading if they are few, else buckets two pixels wide.
//
// A point is {t, seq, v, unit}: t in milliseconds since 1970, v as it was measured (number, BigInt, boolean, text).
// A bucket is {t, every, count, numbers?, booleans?, texts?} as in `GET /readings/buckets?values=all`, t its start.

import { now } from "./clock.js";
import { parse } from "./exact-json.js";
import { get } from "./session.js";

const PAGE = 1000;
const STEPS_MS = [
  10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5,
  432e5, 864e5, 1728e5, 6048e5,
];
// As in `GET /series/search`: readings further ahead of the server's clock are not current.
export const AHEAD_MS = 60_000;

export function bucketMs(fromMs, toMs, width) {
  const wanted = (toMs - fromMs) / Math.max(50, width / 2);
  return STEPS_MS.find((step) => step >= wanted) ?? Math.ceil(wanted / 864e5) * 864e5;
}

async function fetchItems(path, { device, sensorType }, query, signal) {
  try {
    return parse(await (await get(path, { device, sensorType, ...query }, { signal })).text());
  } catch (error) {
    if (error.status === 404) return { items: [] }; // no reading of this device was ever stored
    throw error;
  }
}

export function point(reading) {
  return { t: Date.parse(reading.ts), seq: reading.seq, v: reading.value, unit: reading.unit };
}

// One page of readings: {points, cursor}; the last has no cursor.
export async function page(series, { from, to, cursor, order, limit = PAGE }, signal) {
  const query = { from: floor(from), to: to === undefined ? undefined : Math.ceil(to), cursor, order, limit };
  const { items, nextCursor } = await fetchItems("/readings", series, query, signal);
  return { points: items.filter((item) => item.value !== null).map(point), cursor: nextCursor };
}

export async function buckets(series, from, to, every, signal) {
  const query = { from: floor(from), to: Math.ceil(to), every: `${every}ms`, values: "all" };
  const { items } = await fetchItems("/readings/buckets", series, query, signal);
  return items.map((item) => ({ ...item, t: Date.parse(item.ts), every }));
}

// A whole range: {points, buckets, everyMs, last}. Up to `maxReadings` are loaded as points, more as buckets; the other
// of the two is null. `last` is the last reading, with the details a bucket lacks.
export async function load(series, from, to, width, { maxReadings = PAGE, preferBuckets = false, signal }) {
  const points = preferBuckets ? null : await readings(series, from, to, maxReadings, signal);
  if (points) return { points, buckets: null, everyMs: 0, last: points.at(-1) ?? null };
  const everyMs = bucketMs(from, to, width);
  const [found, last] = await Promise.all([
    buckets(series, from, to, everyMs, signal),
    page(series, { from, to, order: "desc", limit: 1 }, signal),
  ]);
  if (preferBuckets && found.reduce((sum, one) => sum + one.count, 0) <= maxReadings) {
    return load(series, from, to, width, { maxReadings, signal });
  }
  return { points: null, buckets: found, everyMs, last: last.points[0] ?? null };
}

// All readings, or null if there are more than `maxReadings`.
async function readings(series, from, to, maxReadings, signal) {
  const points = [];
  let cursor;
  do {
    const next = await page(series, { from, to, cursor }, signal);
    points.push(...next.points);
    cursor = next.cursor;
  } while (cursor && points.length < maxReadings);
  return cursor ? null : points;
}

// The times of the first and last current reading of a series, or null.
export async function ends(series) {
  const to = now() + AHEAD_MS;
  const [first, last] = await Promise.all(
    ["asc", "desc"].map((order) => page(series, { to, order, limit: 1 })),
  );
  return first.points.length && last.points.length ? [first.points[0].t, last.points[0].t] : null;
}

// How many readings of a range arrived, and of how many: {received, expected}; `expected` is null where the series'
// `seq` does not tell.
export async function completeness({ device, sensorType }, { from, to }, signal) {
  const path = `/devices/${encodeURIComponent(device)}/gaps`;
  const response = await get(path, { sensorType, from: floor(from), to: Math.ceil(to), limit: 1 }, { signal });
  return parse(await response.text());
}

// The readings ahead of now: {count, to}, or null.
export async function ahead(series, signal) {
  const from = now() + AHEAD_MS;
  const { points } = await page(series, { from, order: "desc", limit: 1 }, signal);
  if (!points.length) return null;
  const to = points[0].t;
  const found = await buckets(series, from, to + 1, Math.max(1000, Math.ceil((to - from) / 1000) * 1000), signal);
  return { count: found.reduce((sum, one) => sum + one.count, 0), to };
}

const floor = (ms) => (ms === undefined ? undefined : Math.floor(ms));
