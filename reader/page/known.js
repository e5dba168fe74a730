// The series that the page knows: what the server last told of them, and what was heard of them since.
//
// A series is {key, device, name, location, sensorType, unit, registered, connected, lastSeenAt, latest, ahead, spark,
// heardAt}; latest and ahead are readings as in `GET /readings/latest`, or null.

import { now } from "./clock.js";
import { AHEAD_MS } from "./history.js";

const SPARK_POINTS = 60;
// A device without a session that was heard of this long ago is sending: over HTTP, or through another.
const SENDING_MS = 15_000;
// The server may tell an old name for so long, in a long list.
const RENAMED_MS = 150_000;

export const keyOf = (one) => `${one.device}\n${one.sensorType}`;

const at = (reading) => Date.parse(reading.ts);
const receivedAt = (reading) => Date.parse(reading.receivedAt ?? reading.ts);
const isAhead = (reading) => at(reading) > now() + AHEAD_MS;

// What is live is what was received last; but what comes late goes where it belongs, which is not the end. A clock that
// was put right by less than a minute is not late.
function replaces(reading, shown) {
  if (!shown) return true;
  if (Math.abs(at(reading) - at(shown)) >= AHEAD_MS) return at(reading) > at(shown);
  return receivedAt(reading) >= receivedAt(shown);
}

export class Known {
  constructor() {
    this.series = new Map();
    this.named = new Map(); // what was renamed here, until the server tells it too
  }

  get(key) {
    return this.series.get(key);
  }

  // Take in what the server tells of a series; returns the series.
  told(item) {
    const key = keyOf(item);
    const one = this.series.get(key) ?? { key, spark: [], heardAt: -Infinity, latest: null, ahead: null };
    const { device, sensorType, location, registered, connected, lastSeenAt } = item;
    Object.assign(one, { device, sensorType, location, registered, connected, lastSeenAt });
    one.name = this.#nameOf(item);
    if (item.latest && replaces(item.latest, one.latest)) one.latest = item.latest;
    if (item.ahead || one.heardAt < performance.now() - AHEAD_MS) one.ahead = item.ahead ?? null;
    this.#settle(one);
    this.series.set(key, one);
    return one;
  }

  // Take in a reading of the live feed; false where the series is not known.
  heard(reading) {
    const one = this.series.get(keyOf(reading));
    if (!one) return false;
    one.heardAt = performance.now();
    one.fresh = true;
    if (isAhead(reading)) {
      if (!one.ahead || at(reading) >= at(one.ahead)) one.ahead = reading;
    } else if (replaces(reading, one.latest)) {
      one.latest = reading;
      if (typeof reading.value === "number") one.spark.push(reading.value);
      if (one.spark.length > SPARK_POINTS) one.spark.shift();
    }
    this.#settle(one);
    return true;
  }

  // Time has come for what was ahead.
  #settle(one) {
    if (one.ahead && !isAhead(one.ahead)) {
      if (replaces(one.ahead, one.latest)) one.latest = one.ahead;
      one.ahead = null;
    }
    one.unit = one.latest?.unit;
  }

  rename(device, name) {
    this.named.set(device, { name, until: performance.now() + RENAMED_MS });
    for (const one of this.series.values()) if (one.device === device) one.name = name;
  }

  #nameOf({ device, name }) {
    const mine = this.named.get(device);
    if (!mine || mine.name === name || performance.now() > mine.until) {
      this.named.delete(device);
      return name;
    }
    return mine.name;
  }

  // Forget all but these keys: memory does not grow with what was looked at.
  keep(keys) {
    for (const key of this.series.keys()) if (!keys.has(key)) this.series.delete(key);
  }
}

export const label = (one) => one.name ?? one.device;

// "online" with a session at a gateway, "sending" where readings come in without one, else "offline".
export function stateOf(one) {
  if (one.connected) return "online";
  return performance.now() - one.heardAt < SENDING_MS ? "sending" : "offline";
}
