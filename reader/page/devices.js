// The list: every series with its device's state, its newest value, and a line of where it comes from.

import * as format from "./format.js";

const SHOWN_AT_ONCE = 100;
const SPARK_POINTS = 60;
const SVG = "http://www.w3.org/2000/svg";

export const keyOf = (one) => `${one.device}\n${one.sensorType}`;

export class DeviceList {
  constructor({ onChosen }) {
    this.onChosen = onChosen;
    this.series = new Map();
    this.rows = new Map();
    this.names = new Map();
    this.chosen = new Set();
    this.most = SHOWN_AT_ONCE;
    this.list = document.getElementById("series");
    this.filter = document.getElementById("filter");
    this.more = document.getElementById("more");
    this.filter.addEventListener("input", () => this.draw());
    this.more.addEventListener("click", () => {
      this.most += SHOWN_AT_ONCE;
      this.draw();
    });
  }

  // What the server says there is; what was heard live since then stays.
  update(items) {
    for (const item of items) {
      const known = this.series.get(keyOf(item)) ?? this.#add(item.device, item.sensorType);
      known.connected = item.connected;
      known.seenAt = item.lastSeenAt === null ? null : Date.parse(item.lastSeenAt);
      if (item.lastReadingAt !== null) known.at = Math.max(known.at ?? 0, Date.parse(item.lastReadingAt));
    }
    this.draw();
  }

  name(devices) {
    for (const device of devices) this.names.set(device.id, device.name);
    this.draw();
  }

  // A newest reading out of history: all there is to show of a series that is quiet.
  known(reading) {
    const one = this.series.get(keyOf(reading)) ?? this.#add(reading.device, reading.sensorType);
    const at = Date.parse(reading.ts);
    if (at < (one.at ?? 0) && one.value !== undefined) return null;
    return Object.assign(one, { at, value: reading.value, unit: reading.unit });
  }

  heard(reading) {
    const one = this.known(reading);
    if (one === null) return;
    one.connected = true;
    if (typeof reading.value === "number") {
      one.spark.push(reading.value);
      if (one.spark.length > SPARK_POINTS) one.spark.shift();
    }
    one.fresh = true;
  }

  label(one) {
    return this.names.get(one.device) ?? one.device;
  }

  choose(keys) {
    this.chosen = new Set(keys);
    this.draw();
    this.onChosen();
  }

  get online() {
    return new Set([...this.series.values()].filter((one) => one.connected).map((one) => one.device)).size;
  }

  #add(device, sensorType) {
    const one = { device, sensorType, connected: false, spark: [], at: null, value: undefined, unit: undefined };
    this.series.set(keyOf(one), one);
    return one;
  }

  draw() {
    const wanted = this.filter.value.trim().toLowerCase();
    const all = [...this.series.values()]
      .map((one) => ({ one, label: this.label(one) }))
      .filter(({ one, label }) => `${label} ${one.device} ${one.sensorType}`.toLowerCase().includes(wanted))
      .sort((a, b) => a.label.localeCompare(b.label, undefined, { numeric: true }) ||
        a.one.sensorType.localeCompare(b.one.sensorType));
    const shown = all.slice(0, this.most);
    const rows = shown.map(({ one, label }) => this.#row(one, label));
    if (rows.length !== this.list.children.length || rows.some((row, at) => row !== this.list.children[at])) {
      this.list.replaceChildren(...rows);
    }
    this.more.hidden = shown.length === all.length;
    document.getElementById("no-series").hidden = this.series.size > 0;
    const devices = new Set([...this.series.values()].map((one) => one.device)).size;
    document.getElementById("count").textContent = `${devices} devices, ${this.series.size} series`;
    for (const { one } of shown) this.refresh(one);
  }

  // Only what has news, twice a second: thousands of events must not become thousands of layouts.
  refreshFresh() {
    for (const one of this.series.values()) {
      if (this.rows.get(keyOf(one)) === undefined && one.fresh) return this.draw();
    }
    for (const one of this.series.values()) this.refresh(one);
  }

  refresh(one) {
    const row = this.rows.get(keyOf(one));
    if (!row?.isConnected) return;
    const { parts } = row;
    parts.dot.className = one.connected ? "dot on" : "dot";
    parts.state.textContent = one.connected ? "online" : "offline";
    parts.value.textContent = format.value(one.value, one.unit);
    parts.age.textContent = one.at ? format.age(one.at) : "";
    if (one.fresh) parts.line.setAttribute("points", points(one.spark));
    one.fresh = false;
  }

  #row(one, label) {
    const key = keyOf(one);
    let row = this.rows.get(key);
    if (row === undefined) {
      row = this.#make(key, one);
      this.rows.set(key, row);
    }
    row.parts.name.textContent = label;
    row.parts.box.checked = this.chosen.has(key);
    return row;
  }

  #make(key, one) {
    const row = document.createElement("li");
    const label = row.appendChild(document.createElement("label"));
    const box = label.appendChild(element("input"));
    box.type = "checkbox";
    box.addEventListener("change", () => {
      if (box.checked) this.chosen.add(key);
      else this.chosen.delete(key);
      this.onChosen();
    });
    const name = label.appendChild(element("span", "name"));
    name.title = one.device;
    const spark = label.appendChild(document.createElementNS(SVG, "svg"));
    spark.setAttribute("class", "spark");
    spark.setAttribute("viewBox", "0 0 64 26");
    spark.setAttribute("preserveAspectRatio", "none");
    spark.setAttribute("aria-hidden", "true");
    const line = spark.appendChild(document.createElementNS(SVG, "polyline"));
    const value = label.appendChild(element("span", "value"));
    const about = label.appendChild(element("span", "about"));
    const dot = about.appendChild(element("span", "dot"));
    const state = about.appendChild(element("span", "visually-hidden"));
    about.append(` ${one.sensorType}`);
    const age = label.appendChild(element("span", "age"));
    row.parts = { box, name, line, value, age, dot, state };
    return row;
  }
}

function element(tag, className = "") {
  const made = document.createElement(tag);
  made.className = className;
  return made;
}

function points(values) {
  if (values.length < 2) return "";
  const low = Math.min(...values);
  const high = Math.max(...values);
  const height = high - low || 1;
  return values
    .map((value, at) => `${((at / (values.length - 1)) * 64).toFixed(1)},${(23 - ((value - low) / height) * 20).toFixed(1)}`)
    .join(" ");
}
