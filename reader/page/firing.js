// The alarms that are firing, above the chart: asked for every few seconds, and at once when the live feed has one.

import * as format from "./format.js";
import { failureText } from "./http.js";
import { part, showRows } from "./kept-rows.js";
import { keyOf } from "./known-series.js";
import { set } from "./messages.js";
import { repeat } from "./polling.js";
import { severityMark, setSeverity } from "./severity.js";
import { allows, getJson, readOnly, send } from "./session.js";

const EVERY_MS = 5000;
// After an event: alarms often come together.
const SOON_MS = 200;
const MOST_SHOWN = 20;
const MOST_LISTED = 1000;
const RANKS = { critical: 0, warning: 1, info: 2 };

const $ = (id) => document.getElementById(id);
const rankOf = ({ state, severity }) => (state === "firing" ? 0 : 10) + RANKS[severity];
const sinceMs = ({ since, changedAt }) => Date.parse(since ?? changedAt);
const counted = (count, what) => `${format.number(count)} ${count === 1 ? "alarm" : "alarms"} ${what}`;

export class Firing {
  // details: names and newest readings; onShow(key): show a series; onLoaded(changed): asked again
  constructor({ details, onShow, onLoaded }) {
    Object.assign(this, { details, onShow, onLoaded });
    this.alarms = null;
    $("firing-list").addEventListener("click", ({ target }) => this.#clicked(target));
  }

  start() {
    this.endPolling = repeat(EVERY_MS, () => this.refresh());
  }

  // Clears everything of the session.
  stop() {
    this.endPolling?.();
    clearTimeout(this.soon);
    this.alarms = this.endPolling = null;
    this.#draw();
    set($("firing-said"), "");
  }

  // An event of the live feed.
  receive() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.refresh(), SOON_MS);
  }

  // Ask now, or again after the request that is under way.
  refresh() {
    this.wanted = true;
    this.loading ??= this.#loadWhileWanted().finally(() => {
      this.loading = null;
    });
    return this.loading;
  }

  async #loadWhileWanted() {
    while (this.wanted) {
      this.wanted = false;
      await this.#load();
    }
  }

  async #load() {
    if (!allows("alarms:manage")) return;
    let found;
    try {
      const inState = (state) => getJson("/alarms", { state, limit: MOST_LISTED });
      found = await Promise.all(["firing", "acknowledged"].map(inState));
    } catch {
      return; // what was known is shown until the next answer
    }
    if (!this.endPolling) return; // logged out meanwhile
    const before = this.alarms;
    this.alarms = found.flatMap(({ items }) => items).sort((a, b) => rankOf(a) - rankOf(b) || sinceMs(b) - sinceMs(a));
    await this.details.load(this.#shown());
    if (!this.endPolling) return;
    this.#draw();
    this.#say(before);
    this.onLoaded(JSON.stringify(before) !== JSON.stringify(this.alarms));
  }

  #shown() {
    return (this.alarms ?? []).slice(0, MOST_SHOWN);
  }

  #draw() {
    const alarms = this.alarms ?? [];
    const firing = alarms.filter(({ state }) => state === "firing").length;
    const known = alarms.length - firing;
    $("firing").hidden = !alarms.length;
    set($("firing-title"), headingOf(firing, known));
    showRows($("firing-list"), this.#shown(), {
      key: ({ id }) => id,
      make: makeRow,
      fill: (row, alarm) => this.#fill(row, alarm),
    });
    const more = alarms.length - MOST_SHOWN;
    set($("firing-more"), more > 0 ? `And ${format.number(more)} more.` : "");
    $("firing-more").hidden = more <= 0;
  }

  #fill(row, alarm) {
    const { mark, name, series, value, since, button, known } = row.parts;
    const { latest } = this.details.get(alarm);
    const label = this.details.label(alarm);
    const began = sinceMs(alarm);
    row.alarm = alarm;
    setSeverity(mark, alarm.severity);
    set(name, alarm.name);
    name.setAttribute("aria-label", `Show ${label}, ${alarm.sensorType}, of ${alarm.name}`);
    set(series, `${label} · ${alarm.sensorType}`);
    set(value, latest ? `now ${format.value(latest.value, latest.unit)}` : "");
    set(since, `since ${format.time(began)}, ${format.age(began)}`);
    button.hidden = alarm.state !== "firing" || readOnly();
    button.setAttribute("aria-label", `Acknowledge ${alarm.name}, ${label}, ${alarm.sensorType}`);
    known.hidden = alarm.state === "firing";
  }

  // Tell screen readers what has changed.
  #say(before) {
    const was = new Map((before ?? []).map((alarm) => [alarm.id, alarm]));
    const begun = this.alarms.filter(({ id, state }) => state === "firing" && !was.has(id));
    for (const { id } of this.alarms) was.delete(id);
    const ended = [...was.values()];
    const said = [this.#told(begun, "firing"), this.#told(ended, "ended")].filter(Boolean).join(" ");
    if (said) set($("firing-said"), said);
  }

  #told(alarms, what) {
    if (alarms.length > 1) return `${counted(alarms.length, what)}.`;
    return alarms.map((one) => `Alarm ${what}: ${one.name}, ${this.details.label(one)}, ${one.sensorType}.`).join("");
  }

  #clicked(target) {
    const row = target.closest("li");
    if (target === row?.parts.name) this.onShow(keyOf(row.alarm));
    if (target === row?.parts.button) this.#acknowledge(row);
  }

  async #acknowledge({ alarm, parts: { button } }) {
    button.disabled = true;
    this.#fail("");
    try {
      await send("POST", `/alarms/${alarm.id}/acknowledge`);
    } catch (error) {
      // It has ended meanwhile, or another tab was faster.
      if (error.code !== "not_firing") this.#fail(failureText(error));
    }
    const focused = document.activeElement === button || document.activeElement === document.body;
    await this.refresh();
    button.disabled = false;
    if (focused) this.#focusNext();
  }

  // The button that was pressed is gone.
  #focusNext() {
    const next = $("firing-list").querySelector("button.acknowledge:not([hidden])");
    (next ?? ($("firing").hidden ? $("chart-card") : $("firing-title"))).focus();
  }

  #fail(text) {
    set($("firing-message"), text);
    $("firing-message").hidden = !text;
  }
}

function headingOf(firing, known) {
  if (!firing) return counted(known, "acknowledged");
  return known ? `${counted(firing, "firing")}, ${format.number(known)} acknowledged` : counted(firing, "firing");
}

function makeRow() {
  const row = part("li", "alarm");
  const mark = row.appendChild(severityMark());
  const what = row.appendChild(part("div", "what"));
  const name = what.appendChild(part("button", "link name"));
  const series = what.appendChild(part("span", "muted small series-name"));
  const facts = row.appendChild(part("div", "facts-of"));
  const value = facts.appendChild(part("span", "value"));
  const since = facts.appendChild(part("span", "muted small"));
  const button = row.appendChild(part("button", "small-button acknowledge", "Acknowledge"));
  const known = row.appendChild(part("span", "muted small known", "Acknowledged"));
  row.parts = { mark, name, series, value, since, button, known };
  return row;
}
