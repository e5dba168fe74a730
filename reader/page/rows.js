// The rows of the list, all of one height, reused for whatever becomes visible.

import * as format from "./format.js";
import { label, stateOf } from "./known-series.js";

const SVG = "http://www.w3.org/2000/svg";

export function makeRow() {
  const row = element("li", "row");
  const choice = row.appendChild(element("label"));
  const box = choice.appendChild(element("input"));
  box.type = "checkbox";
  const name = choice.appendChild(element("span", "name"));
  const spark = choice.appendChild(document.createElementNS(SVG, "svg"));
  spark.setAttribute("class", "spark");
  spark.setAttribute("viewBox", "0 0 64 26");
  spark.setAttribute("preserveAspectRatio", "none");
  spark.setAttribute("aria-hidden", "true");
  const line = spark.appendChild(document.createElementNS(SVG, "polyline"));
  const value = choice.appendChild(element("span", "value"));
  const about = choice.appendChild(element("span", "about"));
  const dot = about.appendChild(element("span", "dot"));
  const state = about.appendChild(element("span", "visually-hidden"));
  const sensor = about.appendChild(element("span", "sensor"));
  const ahead = about.appendChild(element("span", "mark-ahead"));
  const age = choice.appendChild(element("span", "age"));
  const more = row.appendChild(element("button", "icon more"));
  more.type = "button";
  more.textContent = "⋯";
  row.parts = { box, name, line, value, dot, state, sensor, ahead, age, more };
  row.at = "";
  return row;
}

export function element(tag, className = "") {
  const made = document.createElement(tag);
  made.className = className;
  return made;
}

// A row whose series is not loaded yet.
export function fillEmpty({ parts, classList }) {
  classList.add("loading");
  for (const part of [parts.state, parts.value, parts.sensor, parts.ahead, parts.age]) set(part, "");
  set(parts.name, "…");
  parts.name.title = "";
  parts.more.setAttribute("aria-label", "Details");
  parts.dot.className = "dot";
  check({ parts, classList }, false);
  parts.line.setAttribute("points", "");
}

export function fill(row, one, chosen) {
  const { parts } = row;
  row.classList.remove("loading");
  check(row, chosen);
  const text = label(one);
  set(parts.name, text);
  if (parts.name.title !== text) parts.name.title = text;
  set(parts.sensor, one.sensorType);
  parts.sensor.title = one.sensorType;
  parts.more.setAttribute("aria-label", `Details of ${text}, ${one.sensorType}`);
  one.fresh = true;
  refresh(row, one);
}

export function check({ parts, classList }, chosen) {
  parts.box.checked = chosen;
  classList.toggle("chosen", chosen);
}

// Update what changes over time.
export function refresh({ parts }, one) {
  const state = stateOf(one);
  parts.dot.className = `dot ${{ online: "on", sending: "sending", offline: "" }[state]}`;
  parts.dot.title = stateText(one);
  set(parts.state, `${state} `);
  const value = format.value(one.latest?.value, one.unit);
  set(parts.value, value);
  if (parts.value.title !== value) parts.value.title = value;
  set(parts.age, one.latest ? format.age(Date.parse(one.latest.ts)) : "");
  set(parts.ahead, one.ahead ? "ahead" : "");
  parts.ahead.title = one.ahead ? aheadText(one.ahead) : "";
  if (one.fresh) parts.line.setAttribute("points", points(one.spark));
  one.fresh = false;
}

export function stateText(one) {
  const state = stateOf(one);
  if (state === "online") return "online: connected";
  if (state === "sending") return "sending without a connection";
  return one.lastSeenAt ? `offline, last seen ${format.time(Date.parse(one.lastSeenAt))}` : "offline, never seen";
}

export function aheadText({ value, unit, ts }) {
  return `${format.value(value, unit)}, dated ahead of now: ${format.time(Date.parse(ts))}`;
}

function set(part, text) {
  if (part.textContent !== text) part.textContent = text;
}

function points(values) {
  if (values.length < 2) return "";
  const low = Math.min(...values);
  const height = Math.max(...values) - low || 1;
  const step = 64 / (values.length - 1);
  return values.map((value, at) => `${(at * step).toFixed(1)},${(23 - ((value - low) / height) * 20).toFixed(1)}`).join(" ");
}
