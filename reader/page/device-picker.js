// The devices that a rule is for, chosen one by one: found by name or id, listed, and removed again.

import { part, showRows } from "./kept-rows.js";
import { label } from "./known-series.js";
import { set } from "./messages.js";
import { getJson } from "./session.js";

const TYPED_MS = 200;
const MOST_OFFERED = 20;

const $ = (id) => document.getElementById(id);

export class DevicePicker {
  // details: names of devices; onChanged(): others are chosen
  constructor({ details, onChanged }) {
    Object.assign(this, { details, onChanged });
    this.ids = [];
    this.offered = [];
    $("rule-device").addEventListener("input", () => this.#typed());
    $("rule-device").addEventListener("keydown", (event) => this.#key(event));
    $("rule-add-device").addEventListener("click", () => this.#add());
    $("rule-devices").addEventListener("click", ({ target }) => this.#clicked(target));
  }

  async show(ids) {
    this.ids = [...ids];
    $("rule-device").value = "";
    this.#error("");
    this.#draw();
    await this.details.load(ids.map((device) => ({ device })));
    this.#draw();
  }

  #draw() {
    showRows($("rule-devices"), this.ids, { key: (id) => id, make: makeRow, fill: (row, id) => this.#fill(row, id) });
    $("rule-devices").hidden = !this.ids.length;
  }

  #fill({ parts: { name, remove } }, id) {
    const text = this.details.label({ device: id });
    set(name, text);
    remove.setAttribute("aria-label", `Remove ${text}`);
  }

  #clicked(target) {
    if (target.tagName !== "BUTTON") return;
    const { key } = target.closest("li").dataset;
    this.ids = this.ids.filter((id) => id !== key);
    this.#draw();
    this.onChanged();
    $("rule-device").focus();
  }

  #typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#offer(), TYPED_MS);
  }

  // Enter adds the device, and does not submit the form.
  #key(event) {
    if (event.key !== "Enter") return;
    event.preventDefault();
    this.#add();
  }

  async #offer() {
    const text = $("rule-device").value.trim();
    if (!text) return;
    try {
      await this.#search(text);
    } catch {
      return; // it can be typed in full
    }
    $("rule-device-names").replaceChildren(...this.offered.map((one) => new Option(label(one))));
  }

  async #search(text) {
    const { items } = await getJson("/series/search", { text, limit: MOST_OFFERED });
    this.offered = [...new Map(items.map((one) => [one.device, one])).values()];
  }

  async #add() {
    const text = $("rule-device").value.trim();
    if (!text) return;
    const found = () => this.offered.find((one) => label(one) === text || one.device === text);
    try {
      if (!found()) await this.#search(text);
    } catch {
      this.#error("The server cannot be reached; try again.");
      return;
    }
    const one = found();
    this.#error(one ? "" : "No device has this name or id.");
    if (!one) return;
    $("rule-device").value = "";
    if (this.ids.includes(one.device)) return;
    this.ids.push(one.device);
    await this.details.load([{ device: one.device }]);
    this.#draw();
    this.onChanged();
  }

  #error(text) {
    set($("rule-device-error"), text);
    if (text) $("rule-device").setAttribute("aria-invalid", "true");
    else $("rule-device").removeAttribute("aria-invalid");
  }
}

function makeRow() {
  const row = part("li", "");
  const name = row.appendChild(part("span", ""));
  const remove = row.appendChild(part("button", "small-button", "Remove"));
  row.parts = { name, remove };
  return row;
}
