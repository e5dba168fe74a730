// The tooltip: for each series shown, the reading nearest to the time under the pointer.

import { namesAt } from "./shading.js";
import { duration, number, share, value } from "./format.js";

const TIME_FORMAT = {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
  hourCycle: "h23", timeZoneName: "shortOffset",
};
const TIME_FORMAT_MS = { ...TIME_FORMAT, fractionalSecondDigits: 3 };
// The largest distance to a reading.
const REACH_PX = 24;
const APART_PX = 14;

export class Hover {
  constructor(chart, labelOf) {
    this.chart = chart;
    this.labelOf = labelOf;
    this.box = document.getElementById("chart-hover");
    this.mark = document.getElementById("chart-mark");
    this.pointer = null;
    chart.addEventListener("pointermove", (event) => {
      this.pointer = { x: event.clientX, y: event.clientY };
      this.show();
    });
    for (const name of ["pointerleave", "pointerdown", "pointercancel"]) {
      chart.addEventListener(name, () => this.hide());
    }
  }

  // Set what is drawn.
  update(panels, view) {
    this.panels = panels;
    this.view = view;
    if (this.pointer) this.show();
  }

  hide() {
    this.pointer = null;
    this.box.hidden = this.mark.hidden = true;
  }

  show() {
    if (!this.view) return;
    const { fromMs, margin, width, pxMs, height, zone } = this.view;
    const frame = this.chart.getBoundingClientRect();
    const x = this.pointer.x - frame.left - margin.l;
    const pointed = fromMs + x * pxMs;
    const found = x < 0 || x > width ? [] : this.#at(pointed, REACH_PX * pxMs);
    const at = found.length ? found.reduce((nearest, one) => (one.away < nearest.away ? one : nearest)).point.t : pointed;
    const rows = found.map(({ part, point }) => rowOf(part, point, this.labelOf(part.line)));
    if (x >= 0 && x <= width) rows.push(...namesAt(this.view.shaded, at, this.labelOf).map((text) => line("said", text)));
    this.box.hidden = this.mark.hidden = !rows.length;
    if (!rows.length) return;
    this.box.replaceChildren(line("when", zone.text(at, at % 1000 ? TIME_FORMAT_MS : TIME_FORMAT)), ...rows);
    const px = margin.l + (at - fromMs) / pxMs;
    Object.assign(this.mark.style, { left: `${px}px`, top: `${margin.t}px`, height: `${height - margin.t - margin.b}px` });
    const left = px + APART_PX + this.box.offsetWidth < frame.width ? px + APART_PX : px - APART_PX - this.box.offsetWidth;
    const top = Math.min(this.pointer.y - frame.top + APART_PX, frame.height - this.box.offsetHeight);
    Object.assign(this.box.style, { left: `${Math.max(0, left)}px`, top: `${Math.max(0, top)}px` });
  }

  // The reading of each part nearest to a time; a state lasts until the next one.
  #at(ms, reach) {
    const found = [];
    for (const part of this.panels.flatMap((panel) => panel.parts)) {
      const { points, kind, everyMs, pauseMs } = part;
      let at = countUpTo(points, ms);
      const [before, after] = [points[at - 1], points[at]];
      const lasting = kind !== "number" && before && (after ? after.t - before.t < pauseMs : ms - before.t < Math.max(everyMs, reach));
      const point = lasting || !after || (before && ms - before.t <= after.t - ms) ? before : after;
      const away = Math.abs(point.t - ms);
      if (lasting || away <= Math.max(reach, everyMs)) found.push({ part, point, away });
    }
    return found;
  }
}

// The number of points at or before a time.
function countUpTo(points, ms) {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].t <= ms) low = middle + 1;
    else high = middle;
  }
  return low;
}

function rowOf({ line: { number: colour }, kind, unit, everyMs }, point, label) {
  const row = line("said", "");
  const key = document.createElement("span");
  key.className = `key key-${colour}`;
  row.append(key, `${label}: ${textOf(kind, point, unit, everyMs)}`);
  return row;
}

function textOf(kind, point, unit, everyMs) {
  const many = everyMs && point.count > 1 ? ` in ${duration(everyMs)}` : "";
  if (!many) return value(point.v, unit);
  if (kind === "boolean") return `on in ${share(point.on / point.count)} of ${number(point.count)} readings${many}`;
  if (kind === "text") return point.top.map(([text, times]) => `${text} × ${number(times)}`).join(", ") + many;
  return `${value(point.low)} to ${value(point.high, unit)}, mean ${value(Number(Number(point.v).toPrecision(7)), unit)}${many}`;
}

function line(name, text) {
  const made = document.createElement("div");
  made.className = name;
  made.textContent = text;
  return made;
}
