// The series known to the page: their state from the server, updated by readings of the live feed.
//
// A series is {key, device, name, location, sensorType, unit, registered, connected, lastSeenAt, latest, ahead, spark,
// lastReceivedAt}; latest and ahead are readings as in `GET /readings/latest`, or null.

import { now } from "./clock.js";
import { AHEAD_MS } from "./history.js";

const SPARK_POINTS = 60;
// A device without a session whose last reading is newer than this is sending: over HTTP, or through another device.
const SENDING_MS = 15_000;
// How long the server may return the old name, in a long list.
const RENAMED_MS = 150_000;

export const keyOf = (one) => `${one.device}\n${one.sensorType}`;

const at = (reading) => Date.parse(reading.ts);
const receiptMs = (reading) => Date.parse(reading.receivedAt ?? reading.ts);
const isAhead = (reading) => at(reading) > now() + AHEAD_MS;

// The latest reading is the one received last, except for late ones, which belong earlier. A clock corrected by less
// than a minute does not make a reading late.
function replaces(reading, shown) {
  if (!shown) return true;
  if (Math.abs(at(reading) - at(shown)) >= AHEAD_MS) return at(reading) > at(shown);
  return receiptMs(reading) >= receiptMs(shown);
}

export class KnownSeries {
  constructor() {
    this.series = new Map();
    this.renames = new Map(); // devices renamed here, until the server returns the new name
  }

  get(key) {
    return this.series.get(key);
  }

  // Apply an item of the server's; returns the series.
  update(item) {
    const key = keyOf(item);
    const one = this.series.get(key) ?? { key, spark: [], lastReceivedAt: -Infinity, latest: null, ahead: null };
    const { device, sensorType, location, registered, connected, lastSeenAt } = item;
    Object.assign(one, { device, sensorType, location, registered, connected, lastSeenAt });
    one.name = this.#nameOf(item);
    if (item.latest && replaces(item.latest, one.latest)) one.latest = item.latest;
    if (item.ahead || one.lastReceivedAt < performance.now() - AHEAD_MS) one.ahead = item.ahead ?? null;
    this.#promoteAhead(one);
    this.series.set(key, one);
    return one;
  }

  // Apply a reading of the live feed; returns false if the series is unknown.
  receive(reading) {
    const one = this.series.get(keyOf(reading));
    if (!one) return false;
    one.lastReceivedAt = performance.now();
    one.fresh = true;
    if (isAhead(reading)) {
      if (!one.ahead || at(reading) >= at(one.ahead)) one.ahead = reading;
    } else if (replaces(reading, one.latest)) {
      one.latest = reading;
      if (typeof reading.value === "number") one.spark.push(reading.value);
      if (one.spark.length > SPARK_POINTS) one.spark.shift();
    }
    this.#promoteAhead(one);
    return true;
  }

  // A reading that is no longer ahead becomes the latest.
  #promoteAhead(one) {
    if (one.ahead && !isAhead(one.ahead)) {
      if (replaces(one.ahead, one.latest)) one.latest = one.ahead;
      one.ahead = null;
    }
    one.unit = one.latest?.unit;
  }

  rename(device, name) {
    this.renames.set(device, { name, until: performance.now() + RENAMED_MS });
    for (const one of this.series.values()) if (one.device === device) one.name = name;
  }

  #nameOf({ device, name }) {
    const renamed = this.renames.get(device);
    if (!renamed || renamed.name === name || performance.now() > renamed.until) {
      this.renames.delete(device);
      return name;
    }
    return renamed.name;
  }

  // Drop all but these keys, to bound memory.
  keep(keys) {
    for (const key of this.series.keys()) if (!keys.has(key)) this.series.delete(key);
  }
}

export const label = (one) => one.name ?? one.device;

// "online" with a session at a gateway, "sending" if readings arrive without one, else "offline".
export function stateOf(one) {
  if (one.connected) return "online";
  return performance.now() - one.lastReceivedAt < SENDING_MS ? "sending" : "offline";
}
