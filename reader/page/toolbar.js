// What stands above the chart: spans, moving about, from and to, the zone. It tells what was asked for, and shows what is.

import { BROWSER_ZONE } from "./address.js";
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
    const wrong = Number.isNaN(from) || Number.isNaN(to) ? "Both times are needed." : from >= to ? "From must lie before to." : "";
    $("range-error").textContent = wrong;
    if (wrong) return;
    // Of an hour that comes twice, all of it.
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

  // A name that the browser knows, and does not list.
  #chooseZone(name) {
    $("zone").value = name;
    if ($("zone").value === name) return;
    $("zone").append(new Option(name, name));
    $("zone").value = name;
  }
}

// As an input of type datetime-local has it.
const written = (shownMs) => new Date(shownMs).toISOString().slice(0, 19);
