// What a chart shows of one series: every reading where they are few, else buckets as wide as two pixels.

import { getJson } from "./session.js";

const MOST_READINGS = 1000;
const STEPS_MS = [
  10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5,
  432e5, 864e5, 1728e5, 6048e5,
];

export function bucketMs(fromMs, toMs, width) {
  const wanted = (toMs - fromMs) / Math.max(50, width / 2);
  return STEPS_MS.find((step) => step >= wanted) ?? Math.ceil(wanted / 864e5) * 864e5;
}

// Points are {t, v} or, in buckets, {t, v, min, max, count}; t is milliseconds since 1970.
export async function load(series, fromMs, toMs, width, signal) {
  const { device, sensorType } = series;
  const range = { device, sensorType, from: Math.floor(fromMs), to: Math.ceil(toMs) };
  const page = await getJson("/readings", { ...range, limit: MOST_READINGS }, { signal });
  if (!page.nextCursor) {
    const points = page.items.filter((item) => item.value !== null).map(point);
    return { points, everyMs: 0, readings: points.length };
  }
  const everyMs = bucketMs(fromMs, toMs, width);
  const { items } = await getJson("/readings/buckets", { ...range, every: `${everyMs}ms` }, { signal });
  const points = items.map((item) => ({
    t: Date.parse(item.ts) + everyMs / 2,
    v: item.avg,
    min: item.min,
    max: item.max,
    first: item.first,
    last: item.last,
    count: item.count,
  }));
  return { points, everyMs, readings: points.reduce((sum, one) => sum + one.count, 0) };
}

export function point(reading) {
  const { value } = reading;
  return { t: Date.parse(reading.ts), v: typeof value === "boolean" ? Number(value) : value, unit: reading.unit };
}

export async function ends(series) {
  const { device, sensorType } = series;
  const [first, last] = await Promise.all(
    ["asc", "desc"].map((order) => getJson("/readings", { device, sensorType, order, limit: 1 })),
  );
  if (!first.items.length || !last.items.length) return null;
  return [Date.parse(first.items[0].ts), Date.parse(last.items[0].ts)];
}
