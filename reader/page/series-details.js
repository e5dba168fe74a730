// Names and newest readings of series that alarms are about: from the list, or asked for where the list has not loaded
// them.

import { keyOf, label } from "./known-series.js";
import { getJson } from "./session.js";

const FRESH_MS = 15_000;
const MOST_KEPT = 500;
const MOST_AT_ONCE = 20;

export class SeriesDetails {
  // inList(key): a series of the list, or undefined
  constructor(inList) {
    this.inList = inList;
    this.fetched = new Map(); // device → {items, at}
  }

  // What is known of {device, sensorType}: a series, or its device's name only.
  get(one) {
    const items = this.fetched.get(one.device)?.items ?? [];
    const found = this.inList(keyOf(one)) ?? items.find((item) => item.sensorType === one.sensorType);
    return found ?? { ...one, name: items[0]?.name };
  }

  label(one) {
    return label(this.get(one));
  }

  // Ask for those that are not known, as far as they are few.
  async load(series) {
    const due = performance.now() - FRESH_MS;
    const unknown = series.filter((one) => !this.inList(keyOf(one)) && !(this.fetched.get(one.device)?.at > due));
    const devices = [...new Set(unknown.map(({ device }) => device))].slice(0, MOST_AT_ONCE);
    await Promise.all(devices.map((device) => this.#fetch(device)));
  }

  async #fetch(device) {
    try {
      const { items } = await getJson("/series/search", { device, limit: 200 });
      this.fetched.delete(device);
      this.fetched.set(device, { items, at: performance.now() });
    } catch {
      // Its id is shown until then.
    }
    while (this.fetched.size > MOST_KEPT) this.fetched.delete(this.fetched.keys().next().value);
  }
}
