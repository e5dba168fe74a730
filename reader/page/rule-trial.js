// A rule tried on the last day: when it would have fired, in a list, and shaded in the chart.

import { keyOf } from "./known-series.js";
import * as format from "./format.js";
import { part } from "./kept-rows.js";
import { send } from "./session.js";
import { spanText } from "./shading.js";

const MOST_LISTED = 20;

const $ = (id) => document.getElementById(id);
const times = (count) => (count === 1 ? "once" : `${format.number(count)} times`);

export class RuleTrial {
  // details: names of devices; onTried(trial): what to shade, null for nothing
  constructor({ details, onTried }) {
    Object.assign(this, { details, onTried });
    this.clear();
  }

  clear() {
    $("trial").hidden = true;
    this.trial = null;
    this.onTried(null);
  }

  // Try a rule; throws what the server finds wrong with it.
  async run(rule) {
    const { items, series, readings, complete } = await send("POST", "/alarms/rules/test", rule);
    const firings = items.map(({ device, sensorType, from, to }) => {
      return { device, sensorType, from: Date.parse(from), to: to ? Date.parse(to) : Infinity };
    });
    this.trial = { name: rule.name || "the rule", severity: rule.severity, items: firings };
    const shown = firings.sort((a, b) => b.from - a.from).slice(0, MOST_LISTED);
    await this.details.load(shown);
    $("trial-result").textContent = this.#summary(firings, { series, readings, complete });
    $("trial-list").replaceChildren(...shown.map((one) => part("li", "", `${this.details.label(one)}: ${this.#when(one)}`)));
    const more = firings.length - shown.length;
    if (more) $("trial-list").append(part("li", "muted", `and ${format.number(more)} earlier`));
    $("trial-list").hidden = $("trial-look").hidden = !firings.length;
    $("trial").hidden = false;
    this.onTried(this.trial);
  }

  #summary(firings, { series, readings, complete }) {
    if (!series) return "No series matches: these devices have sent nothing of this sensor.";
    const read = `${format.readings(readings)} of ${format.number(series)} series`;
    const rest = complete ? "" : " There is more, which was not read.";
    const count = firings.length ? `have fired ${times(firings.length)}` : "not have fired";
    return `It would ${count} in the last day, in ${read}.${rest}`;
  }

  #when(one) {
    const lasted = one.to === Infinity ? "still" : format.lasting(one.to - one.from);
    return `${spanText(one)}, ${lasted}`;
  }

  // The series with the newest firings.
  get keys() {
    return [...new Set(this.trial.items.map(keyOf))];
  }
}
