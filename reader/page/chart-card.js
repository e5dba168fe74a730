// The chart's card: the selected series, the time range shown, the chart and its description.
//
// The page provides `series(key)` and `label(series)`, and calls `choose` with the selection and `receive` with every
// reading of the live feed.

import * as fragment from "./fragment.js";
import { Chart } from "./chart.js";
import { now } from "./clock.js";
import { Downloads } from "./download.js";
import * as format from "./format.js";
import { AHEAD_MS } from "./history.js";
import { Legend } from "./legend.js";
import { Line } from "./line.js";
import { Messages, set } from "./messages.js";
import { partsOf } from "./parts.js";
import { runPlotly } from "./plotly.js";
import { ApiError } from "./session.js";
import { ShadedList } from "./shading.js";
import { LIVE_MS, Span } from "./spans.js";
import { Toolbar } from "./toolbar.js";
import { Zone } from "./zone.js";

export const MOST_CHOSEN = 8;
// The shortest live range, so that the chart of a new series is not nearly empty.
const LEAST_LIVE_MS = 30_000;
const TICK_MS = 125;
const DRAW_EVERY_MS = { changed: 250, quiet: 500, slow: 500 };
// The largest share of time spent drawing.
const MOST_DRAWING = 0.25;
// What is drawn for a bucket.
const BUCKET_DESCRIPTIONS = { number: "mean and range", boolean: "share that was on", text: "most frequent text" };
const SHOWN_TITLES = { live: "Live", "1h": "The last hour", "24h": "The last 24 hours", "7d": "The last 7 days" };

const $ = (id) => document.getElementById(id);

export class ChartCard {
  // alarms: the spans to shade
  constructor({ series, label, alarms }) {
    this.seriesOf = series;
    this.alarms = alarms;
    this.labelOf = (line) => label(series(line.key) ?? line);
    this.chart = new Chart($("chart"), {
      onZoom: (from, to) => this.show("range", from, to),
      onReset: () => this.show(this.span.preset),
      labelOf: this.labelOf,
    });
    this.legend = new Legend($("legend"), this.labelOf, (text) => this.chart.states.of(text));
    this.shaded = new ShadedList($("shaded"), this.labelOf);
    this.lines = new Map();
    this.drawnAt = this.drawingMs = 0;
    this.messages = new Messages($("chart-message"));
    this.toolbar = new Toolbar({
      onSpan: (span) => this.show(span),
      onMove: (how) => this.show("range", ...this.span.moved(how)),
      onRange: (from, to) => this.show("range", from, to),
      onZone: (zone) => this.showZone(zone),
    });
    this.#applyFragment(fragment.read());
    const downloads = new Downloads($("download"), this.messages);
    $("download").addEventListener("click", () => downloads.clicked(this.#files(), (error) => this.failed(error)));
    $("ahead-show").addEventListener("click", () => this.#showAhead());
  }

  // Called after log-in.
  start() {
    setInterval(() => document.hidden || this.tick(), TICK_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.reload());
    addEventListener("resize", () => this.draw());
    fragment.onNavigate((moved) => {
      this.#applyFragment(moved);
      this.reload();
    });
  }

  // Start drawing; called once the faster parts of the page are shown.
  begin() {
    runPlotly(
      () => {
        this.messages.error("");
        this.draw();
      },
      () => this.messages.error("The chart cannot be loaded; trying again."),
    );
  }

  #applyFragment({ span, from, to, zone }) {
    this.span = new Span({ span, from, to });
    this.#useZone(zone);
  }

  #useZone(name) {
    try {
      this.zone = new Zone(name);
    } catch {
      this.zone = new Zone(fragment.BROWSER_ZONE);
      this.message(`This browser does not know the time zone “${name}”.`);
    }
    format.useZone(this.zone);
    this.toolbar.show(this.span, this.zone);
  }

  showZone(name) {
    this.#useZone(name);
    fragment.write({ zone: this.zone.chosen });
    this.draw();
  }

  // A reading of the live feed, of any series. A hidden page draws nothing and reloads when it becomes visible.
  receive(reading) {
    if (!this.span.live || document.hidden) return;
    const line = this.lines.get(`${reading.device}\n${reading.sensorType}`);
    if (!line) return;
    line.receive(reading);
    this.changed = true;
  }

  // Show these series ("device\nsensorType"); returns the keys shown, at most MOST_CHOSEN.
  choose(keys) {
    const chosen = keys.slice(0, MOST_CHOSEN);
    if (keys.length > chosen.length) {
      this.message(`At most ${MOST_CHOSEN} series are shown together: remove one first.`);
    } else if (chosen.length < this.lines.size) this.message("");
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
      this.lines.set(key, new Line(key, number));
    }
    fragment.write({ series: chosen.map((key) => key.split("\n")) });
    this.alarms.show(chosen);
    this.reload();
    return chosen;
  }

  // Show a moving time range, everything, or a fixed "range".
  async show(span, from, to) {
    this.span.set(span, from, to);
    this.message("");
    fragment.write({ span, from: Math.floor(this.span.from), to: Math.ceil(this.span.to) });
    this.toolbar.show(this.span, this.zone);
    await this.reload();
  }

  async reload() {
    this.loading?.abort();
    const { signal } = (this.loading = new AbortController());
    const lines = [...this.lines.values()];
    try {
      this.span.moveOn();
      if (this.span.name === "all") await this.span.around(lines);
      if (signal.aborted) return;
      const { from, to, live, moving } = this.span;
      await Promise.all(lines.map((line) => line.load({ from, to, live, moving, width: this.chart.width, signal })));
      if (!signal.aborted) this.messages.error("");
    } catch (error) {
      if (!signal.aborted) this.failed(error);
    }
    if (signal.aborted) return;
    this.draw();
    for (const line of lines) this.#measure(line, signal);
  }

  // Measured behind the chart: of a long range it takes longer than the chart does.
  async #measure(line, signal) {
    const { from, to, live } = this.span;
    if (live) line.completeness = null;
    else await line.loadCompleteness({ from, to }, signal);
    if (!signal.aborted && line.completeness) this.draw();
  }

  tick() {
    if (!this.lines.size) return;
    if (this.span.live) this.#advance();
    else if (now() >= this.span.dueAt) {
      this.span.asOf = now(); // one request at a time
      this.reload();
    }
  }

  #advance() {
    this.span.moveOn();
    const { signal } = this.loading;
    for (const line of this.lines.values()) {
      line.trim(this.span.from);
      if (line.due) line.catchUp(this.span.from, signal).then(() => this.#onCaughtUp(), (error) => this.failed(error));
    }
    const slow = Math.min(DRAW_EVERY_MS.slow, this.drawingMs / MOST_DRAWING);
    const pause = Math.max(DRAW_EVERY_MS[this.changed ? "changed" : "quiet"], slow);
    if (performance.now() - this.drawnAt >= pause) this.draw();
  }

  #onCaughtUp() {
    this.messages.error("");
    this.changed = true;
    if (this.span.live && performance.now() - this.drawnAt >= this.drawingMs / MOST_DRAWING) this.draw();
  }

  draw() {
    if (typeof Plotly === "undefined") return;
    const began = performance.now();
    const lines = [...this.lines.values()].filter((line) => line.loaded);
    for (const line of lines) line.unit = this.seriesOf(line.key)?.unit;
    const parts = lines.flatMap(partsOf);
    const { from, to } = this.#shown(parts);
    const shaded = this.alarms.within(lines, from, to);
    this.chart.draw(parts, { fromMs: from, toMs: to, spanMs: this.span.length, zone: this.zone, shaded });
    this.shaded.draw(shaded);
    this.legend.draw(lines, parts);
    this.#describe(lines, parts);
    this.changed = false;
    this.drawnAt = performance.now();
    this.drawingMs = this.drawnAt - began;
  }

  // Live: from the first reading, to now or to the last reading that is not ahead.
  #shown(parts) {
    if (!this.span.live) return this.span;
    const { from, to } = this.span;
    const first = Math.min(to, ...parts.map((part) => part.points[0].t));
    const last = Math.max(to, ...parts.map((part) => part.points.at(-1).t));
    return { from: Math.max(from, Math.min(first, to - LEAST_LIVE_MS)), to: Math.min(last, to + AHEAD_MS) };
  }

  #describe(lines, parts) {
    const { name, from, to, live, moving, asOf } = this.span;
    set($("chart-title"), SHOWN_TITLES[name] ?? format.span(from, to));
    const widest = Math.max(0, ...lines.map((line) => line.everyMs));
    const count = format.readings(lines.reduce((sum, line) => sum + line.count, 0));
    const drawn = Object.keys(BUCKET_DESCRIPTIONS).filter((kind) => parts.some((part) => part.everyMs && part.kind === kind));
    const buckets = `${drawn.map((kind) => BUCKET_DESCRIPTIONS[kind]).join(", ")} of each ${format.duration(widest)}`;
    const description = [drawn.length ? `${count}, ${buckets}` : count];
    const known = lines.map((line) => line.completeness).filter((one) => one?.expected);
    if (known.length) {
      const [received, expected] = ["received", "expected"].map((name) => known.reduce((sum, one) => sum + Number(one[name]), 0));
      description.push(`${format.arrived(received, expected)} arrived`);
    }
    if (moving && !live) description.push(`as of ${format.time(asOf)}`);
    set($("resolution"), description.join(" · "));
    const names = lines.map((line) => `${this.labelOf(line)} ${line.sensorType}`).join(", ");
    $("chart").setAttribute("aria-label", `Chart of ${names || "nothing"}`);
    this.messages.hint(this.#hintOf(lines));
    this.#describeAhead(lines);
  }

  // Why the chart is empty.
  #hintOf(lines) {
    if (!this.lines.size) return "Choose a series to see it here.";
    if (lines.length < this.lines.size || lines.some((line) => line.count)) return "";
    return this.span.live ? "No readings in the last five minutes." : "No readings in this span of time.";
  }

  #describeAhead(lines) {
    const ahead = this.span.moving ? lines.map((line) => line.ahead).filter(Boolean) : [];
    $("ahead").hidden = !ahead.length;
    if (!ahead.length) return;
    const count = ahead.reduce((sum, one) => sum + one.count, 0);
    this.aheadTo = Math.max(...ahead.map((one) => one.to));
    set($("ahead-text"), `${format.readings(count)} ahead of now, up to ${format.time(this.aheadTo)}.`);
  }

  #showAhead() {
    const from = now();
    this.show("range", from, this.aheadTo + Math.max(1000, (this.aheadTo - from) / 50));
  }

  // The files of a download: each series, in the time range shown.
  #files() {
    const { from, to, live } = this.span;
    const until = live ? now() + 1 : to;
    const nameOf = (line) => `${this.labelOf(line)}_${line.sensorType}`;
    return [...this.lines.values()].map((line) => ({ series: line, from, to: until, name: nameOf(line) }));
  }

  failed(error) {
    if (error.name === "AbortError") return;
    this.messages.error(error instanceof ApiError ? error.message : "The server cannot be reached; trying again.");
  }

  // Show a message; an empty text clears it and any error.
  message(text, bad = false) {
    this.messages.notify(text, bad);
    if (!text) this.messages.error("");
  }
}
