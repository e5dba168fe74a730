// When alarms of the series in the chart were firing, from their histories: these never change, so only what is new is
// asked for.
//
// A span is {from, to} in milliseconds since 1970; an alarm that is firing has no end: Infinity.

import { keyOf } from "./known-series.js";
import { allows, getJson } from "./session.js";

// Others have no alarms, and cannot be asked for.
const DEVICE = /^[\w.:-]{1,64}$/;
const MOST_ALARMS = 1000;
// Of one series, those that changed last.
const MOST_OF_SERIES = 20;
const PAGE = 1000;
// The rest comes with the next calls.
const PAGES_AT_ONCE = 4;
const MOST_SPANS = 5000;
const EVERY_MS = 15_000;

export class AlarmSpans {
  constructor({ onChanged }) {
    this.onChanged = onChanged;
    this.clear();
  }

  clear() {
    this.keys = new Set();
    this.shown = []; // alarms of the series in the chart
    this.histories = new Map(); // id of an alarm → History
    this.trial = null;
    this.loadedAt = -Infinity;
  }

  // Show firings of a rule that is tried: {name, severity, items}; null for none.
  try(trial) {
    this.trial = trial;
    this.onChanged();
  }

  // Set the series in the chart.
  show(keys) {
    const added = keys.some((key) => !this.keys.has(key));
    this.keys = new Set(keys);
    if (added) this.refresh();
  }

  get due() {
    return performance.now() - this.loadedAt > EVERY_MS;
  }

  async refresh() {
    if (!this.keys.size || !allows("alarms:manage")) return;
    const { keys } = this;
    this.loadedAt = performance.now();
    const devices = [...new Set([...keys].map((key) => key.split("\n")[0]))].filter((device) => DEVICE.test(device));
    try {
      const found = (await Promise.all(devices.map(alarmsOf))).flat().filter((alarm) => keys.has(keyOf(alarm)));
      const newest = newestOf(found);
      const changed = await Promise.all(newest.map((alarm) => this.#history(alarm).update(alarm)));
      if (keys !== this.keys) return; // others are shown by now
      this.#keep(newest);
      const before = this.shown;
      this.shown = newest;
      if (changed.some(Boolean) || !same(before, newest)) this.onChanged();
    } catch {
      // The chart does not depend on it.
    }
  }

  #history({ id }) {
    if (!this.histories.has(id)) this.histories.set(id, new History(id));
    return this.histories.get(id);
  }

  #keep(alarms) {
    const ids = new Set(alarms.map(({ id }) => id));
    for (const id of this.histories.keys()) if (!ids.has(id)) this.histories.delete(id);
  }

  // The spans of these lines within a range: [{line, name, severity, trial, spans}…].
  within(lines, fromMs, toMs) {
    const byKey = new Map(lines.map((line) => [line.key, line]));
    const found = this.shown.map((alarm) => {
      const { name, severity } = alarm;
      return { line: byKey.get(keyOf(alarm)), name: name || "a removed rule", severity, spans: this.#history(alarm).all };
    });
    for (const line of this.trial ? lines : []) {
      const { name, severity, items } = this.trial;
      found.push({ line, name, severity, trial: true, spans: items.filter((one) => keyOf(one) === line.key) });
    }
    const inRange = ({ from, to }) => from < toMs && to >= fromMs;
    return found
      .filter(({ line }) => line)
      .map((one) => ({ ...one, spans: one.spans.filter(inRange) }))
      .filter(({ spans }) => spans.length);
  }
}

async function alarmsOf(device) {
  return (await getJson("/alarms", { device, limit: MOST_ALARMS })).items;
}

function newestOf(alarms) {
  const counts = new Map();
  return alarms
    .sort((a, b) => Date.parse(b.changedAt) - Date.parse(a.changedAt))
    .filter((alarm) => {
      const count = (counts.get(keyOf(alarm)) ?? 0) + 1;
      counts.set(keyOf(alarm), count);
      return count <= MOST_OF_SERIES;
    });
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

// The history of one alarm, as far as it is known.
class History {
  constructor(id) {
    this.id = id;
    this.number = 0;
    this.known = null; // when it changed last, once all is known up to then
    this.spans = [];
    this.open = null;
    this.late = null;
  }

  get all() {
    return [...this.spans, ...[this.open, this.late].filter(Boolean)];
  }

  // Ask for what is new; resolves to whether there was anything.
  async update({ changedAt }) {
    const before = this.number;
    let cursor = this.number || undefined;
    for (let pages = 0; pages < PAGES_AT_ONCE && this.known !== changedAt; pages += 1) {
      const { items, nextCursor } = await getJson(`/alarms/${this.id}/history`, { cursor, limit: PAGE });
      for (const row of items) this.#add(row);
      cursor = this.number || undefined;
      if (!nextCursor) this.known = changedAt;
    }
    return this.number > before;
  }

  // A late reading's firing begins and ends at its own time, whatever the alarm does now.
  #add({ number, state, cause, ts }) {
    if (number <= this.number) return;
    this.number = number;
    const at = Date.parse(ts);
    const which = cause === "late" ? "late" : "open";
    if (state === "firing") this[which] ??= { from: at, to: Infinity };
    if (state !== "ok" || !this[which]) return;
    this.spans.push({ from: this[which].from, to: Math.max(at, this[which].from) });
    this[which] = null;
    if (this.spans.length > MOST_SPANS) this.spans.shift();
  }
}
