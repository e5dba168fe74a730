// The toolbar above the chart: range presets, navigation, custom range, time zone. Reports input and shows the state.

import { BROWSER_ZONE } from "./fragment.js";
import { browserZone } from "./zone.js";

const $ = (id) => document.getElementById(id);

export class Toolbar {
  // onSpan(name), onMove(how), onRange(fromMs, toMs), onZone(name)
  constructor({ onSpan, onMove, onRange, onZone }) {
    for (const button of document.querySelectorAll("[data-span]")) {
      button.addEventListener("click", () => onSpan(button.dataset.span));
    }
    for (const button of document.querySelectorAll("[data-move]")) {
      button.addEventListener("click", () => onMove(button.dataset.move));
    }
    this.onRange = onRange;
    this.picker = $("range-form");
    $("range").addEventListener("click", () => this.#open(this.picker.hidden));
    this.picker.addEventListener("submit", (event) => this.#submit(event));
    this.picker.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.#open(false);
      $("range").focus();
    });
    this.#fillZones();
    $("zone").addEventListener("change", () => onZone($("zone").value));
  }

  show(span, zone) {
    for (const button of document.querySelectorAll("[data-span]")) {
      button.setAttribute("aria-pressed", String(button.dataset.span === span.name));
    }
    this.span = span;
    this.zone = zone;
    if ($("zone").value !== zone.chosen) this.#chooseZone(zone.chosen);
    $("range-zone").textContent = zone.name;
  }

  #open(open) {
    this.picker.hidden = !open;
    $("range").setAttribute("aria-expanded", String(open));
    if (!open) return;
    $("range-error").textContent = "";
    $("from").value = written(this.zone.shown(this.span.from));
    $("to").value = written(this.zone.shown(this.span.to));
    $("from").focus();
  }

  #submit(event) {
    event.preventDefault();
    const [from, to] = [$("from"), $("to")].map((input) => Date.parse(`${input.value}Z`));
    const error = Number.isNaN(from) || Number.isNaN(to) ? "Both times are required." : from >= to ? "From must be before To." : "";
    $("range-error").textContent = error;
    if (error) return;
    // All of an hour that occurs twice.
    this.onRange(this.zone.instant(from), this.zone.instant(to, true));
    this.#open(false);
    $("range").focus();
  }

  #fillZones() {
    const own = browserZone();
    const names = Intl.supportedValuesOf("timeZone").filter((name) => name !== "UTC");
    const option = (value, text) => new Option(text, value);
    $("zone").replaceChildren(
      option(BROWSER_ZONE, `Browser’s (${own})`),
      option("UTC", "UTC"),
      ...names.map((name) => option(name, name)),
    );
  }

  // A name that the browser accepts but does not list.
  #chooseZone(name) {
    $("zone").value = name;
    if ($("zone").value === name) return;
    $("zone").append(new Option(name, name));
    $("zone").value = name;
  }
}

// The format of an input of type datetime-local.
const written = (shownMs) => new Date(shownMs).toISOString().slice(0, 19);
