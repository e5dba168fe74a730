// The chart's card: which series are shown, of what span of time, and what is drawn and told of them.
//
// The page gives it `series(key)` and `label(series)`, tells it what is chosen (`choose`) and every reading that the
// live feed brings (`heard`).

import * as address from "./address.js";
import { Chart, colourOf } from "./chart.js";
import { now } from "./clock.js";
import * as format from "./format.js";
import { ends, load, point } from "./history.js";
import * as session from "./session.js";

export const MOST_CHOSEN = 8;
const LIVE_MS = 5 * 60_000;
// A chart of what has just begun is not nearly empty.
const LEAST_LIVE_MS = 30_000;
const SPANS_MS = { live: LIVE_MS, "1h": 3_600_000, "24h": 86_400_000, "7d": 7 * 86_400_000 };
const MOST_LIVE_POINTS = 6000;
const DRAW_EVERY_MS = 500;

const $ = (id) => document.getElementById(id);

export class Charting {
  constructor({ series, label }) {
    this.seriesOf = series;
    this.labelOf = label;
    this.chart = new Chart($("chart"), {
      onZoom: (from, to) => this.show("zoom", from, to),
      onReset: () => this.show(this.preset),
    });
    this.lines = new Map();
    this.preset = "live";
    this.span = "live";
    this.from = now() - LIVE_MS;
    this.to = now();
    for (const button of document.querySelectorAll("[data-span]")) {
      button.addEventListener("click", () => this.show(button.dataset.span));
    }
    for (const button of document.querySelectorAll("[data-move]")) {
      button.addEventListener("click", () => this.move(button.dataset.move));
    }
    $("download").addEventListener("click", () => this.download());
  }

  // Once somebody is logged in.
  start() {
    setInterval(() => document.hidden || this.tick(), DRAW_EVERY_MS);
  }

  // A reading of the live feed, of whatever series.
  heard(reading) {
    const line = this.lines.get(`${reading.device}\n${reading.sensorType}`);
    if (!line?.points || line.everyMs) return;
    const fresh = point(reading);
    const last = line.points.at(-1);
    if (last && fresh.t <= last.t) return; // known already, or too late for a live chart
    line.points.push(fresh);
    line.unit ??= reading.unit;
    if (line.points.length > MOST_LIVE_POINTS) line.points.shift();
    line.fresh = true;
  }

  // Show these series ("device\nsensorType"); returns the keys of those that are shown, at most MOST_CHOSEN.
  choose(keys) {
    const chosen = keys.slice(0, MOST_CHOSEN);
    if (chosen.length === this.lines.size && chosen.every((key) => this.lines.has(key))) return chosen;
    const free = new Set(Array.from({ length: MOST_CHOSEN }, (_, at) => at));
    for (const [key, line] of this.lines) {
      if (chosen.includes(key)) free.delete(line.number);
      else this.lines.delete(key);
    }
    for (const key of chosen) {
      if (this.lines.has(key)) continue;
      const [number] = free;
      free.delete(number);
      const [device, sensorType] = key.split("\n");
      const series = this.seriesOf(key) ?? { device, sensorType };
      this.lines.set(key, { key, number, series, points: null, everyMs: 0 });
    }
    address.write({ series: chosen.map((key) => key.split("\n")) });
    const told = keys.length > chosen.length ? `At most ${MOST_CHOSEN} series are shown together.` : "";
    this.reload().then(() => told && this.message(told));
    return chosen;
  }

  // Show a span that ends now, all there is, or a stretch that was zoomed to.
  async show(span, from, to) {
    this.span = span;
    if (span !== "zoom") this.preset = span;
    const at = now();
    if (span === "zoom") [this.from, this.to] = from < to ? [from, to] : [to, from];
    else if (span === "all") [this.from, this.to] = (await this.#ends()) ?? [at - LIVE_MS, at];
    else [this.from, this.to] = [at - SPANS_MS[span], at];
    if (this.to - this.from < 20) this.to = this.from + 20;
    for (const button of document.querySelectorAll("[data-span]")) {
      button.setAttribute("aria-pressed", String(button.dataset.span === span));
    }
    await this.reload();
  }

  async #ends() {
    const found = await Promise.all([...this.lines.values()].map((line) => ends(line.series)));
    const known = found.filter(Boolean);
    if (!known.length) return null;
    const [from, to] = [Math.min(...known.map((one) => one[0])), Math.max(...known.map((one) => one[1]))];
    return [from, to + Math.max(1000, (to - from) / 100)];
  }

  move(how) {
    const length = this.to - this.from;
    const by = { earlier: [-0.5, -0.5], later: [0.5, 0.5], in: [0.25, -0.25], out: [-0.5, 0.5] }[how];
    return this.show("zoom", this.from + by[0] * length, this.to + by[1] * length);
  }

  async reload() {
    this.loading?.abort();
    const { signal } = (this.loading = new AbortController());
    const { from, to } = this;
    try {
      await Promise.all(
        [...this.lines.values()].map(async (line) => {
          const loaded = await load(line.series, from, this.span === "live" ? to + 86_400_000 : to, this.chart.width, signal);
          if (signal.aborted) return;
          Object.assign(line, loaded);
          line.unit = line.series.unit ?? line.points.find((one) => one.unit)?.unit;
        }),
      );
      this.message("");
    } catch (error) {
      if (error.name !== "AbortError") this.failed(error);
    }
    if (!signal.aborted) this.draw();
  }

  tick() {
    if (this.span !== "live" || !this.lines.size) return;
    const at = now();
    [this.from, this.to] = [at - LIVE_MS, at];
    for (const line of this.lines.values()) {
      while (line.points?.length && line.points[0].t < this.from) line.points.shift();
    }
    this.draw();
  }

  draw() {
    if (typeof Plotly === "undefined") return;
    const lines = [...this.lines.values()]
      .filter((line) => line.points)
      .map((line) => ({
        ...line,
        label: this.labelOf(line.series),
        sensorType: line.series.sensorType,
        unit: line.series.unit ?? line.unit,
        colour: colourOf(line.number),
      }));
    this.chart.draw(lines, this.span === "live" ? this.#liveFrom(lines) : this.from, this.to);
    $("chart-title").textContent = this.span === "live" ? "Live" : format.span(this.from, this.to);
    const widest = Math.max(0, ...lines.map((line) => line.everyMs));
    const readings = lines.reduce((sum, line) => sum + (line.everyMs ? line.readings : line.points.length), 0);
    $("resolution").textContent = widest
      ? `${format.number(readings)} readings, mean and range of each ${format.duration(widest)}`
      : `${format.number(readings)} readings`;
    this.#legend(lines);
  }

  #liveFrom(lines) {
    const first = Math.min(...lines.map((line) => line.points[0]?.t ?? this.to));
    return Math.max(this.from, Math.min(first, this.to - LEAST_LIVE_MS));
  }

  #legend(lines) {
    const body = $("legend");
    while (body.rows.length > lines.length) body.deleteRow(-1);
    lines.forEach((line, at) => {
      const row = body.rows[at] ?? emptyRow(body);
      const numbers = line.points.filter((one) => typeof one.v === "number");
      const low = numbers.reduce((least, one) => Math.min(least, one.min ?? one.v), Infinity);
      const high = numbers.reduce((most, one) => Math.max(most, one.max ?? one.v), -Infinity);
      const count = numbers.reduce((sum, one) => sum + (one.count ?? 1), 0);
      const mean = numbers.reduce((sum, one) => sum + one.v * (one.count ?? 1), 0) / count;
      const last = line.points.at(-1);
      const known = count > 0;
      const texts = [
        `${line.label} · ${line.sensorType}`,
        format.value(last?.last ?? last?.v, line.unit),
        known ? format.number(low) : "–",
        known ? format.number(mean) : "–",
        known ? format.number(high) : "–",
        last ? format.time(last.t) : "–",
      ];
      row.cells[0].firstChild.className = `key key-${line.colour}`;
      row.cells[0].lastChild.textContent = texts[0];
      for (let cell = 1; cell < texts.length; cell += 1) row.cells[cell].textContent = texts[cell];
    });
    $("chart").setAttribute("aria-label", `Chart of ${lines.map((line) => `${line.label} ${line.sensorType}`).join(", ") || "nothing"}`);
  }

  async download() {
    const button = $("download");
    button.disabled = true;
    try {
      const to = this.span === "live" ? now() + 1 : this.to;
      for (const line of this.lines.values()) {
        const { device, sensorType } = line.series;
        const query = { device, sensorType, from: Math.floor(this.from), to: Math.ceil(to), format: "csv" };
        save(await (await session.get("/readings", query)).blob(), `${this.labelOf(line.series)}_${sensorType}.csv`);
      }
      if (!this.lines.size) this.message("Choose a series first.");
    } catch (error) {
      this.failed(error);
    } finally {
      button.disabled = false;
    }
  }

  failed(error) {
    if (error.name === "AbortError") return;
    this.message(error instanceof session.Refused ? error.message : "The server cannot be reached; trying again.", true);
  }

  message(text, bad = false) {
    if (!bad) this.troubled = null;
    $("chart-message").textContent = text;
    $("chart-message").className = bad ? "message bad" : "message";
  }
}

function emptyRow(body) {
  const row = body.insertRow();
  const head = row.appendChild(document.createElement("th"));
  head.scope = "row";
  head.append(document.createElement("span"), document.createElement("span"));
  for (let cell = 0; cell < 5; cell += 1) row.insertCell();
  return row;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.:-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
