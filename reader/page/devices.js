// The list of series: found by the server, shown as far as they are in sight, and chosen for the chart.

import { MOST_CHOSEN } from "./charting.js";
import * as format from "./format.js";
import { Found } from "./found.js";
import { Known, keyOf } from "./known.js";
import { fill, fillEmpty, refresh } from "./rows.js";
import { getJson, Refused } from "./session.js";
import { VirtualList } from "./virtual.js";

export { keyOf };

const REFRESH_MS = 500;
const TYPED_MS = 200;
// As many series are heard whether they are in sight or not; of more, only those that were looked at.
const MOST_HEARD = 1000;

const $ = (id) => document.getElementById(id);

export class DeviceList {
  // onChosen(): other series are chosen; onWanted(keys): whose readings are wanted, series or devices, null for all;
  // onFirst(items): the first that have readings; onLabels(): chosen ones have names now; onDetails(series)
  // onSettled(): the list shows what there is, or why it does not; more than once
  constructor({ onChosen, onWanted, onFirst, onLabels, onDetails, onSettled }) {
    Object.assign(this, { onChosen, onWanted, onFirst, onLabels, onDetails, onSettled });
    this.known = new Known();
    this.chosen = new Set();
    this.expected = new Set(); // devices that were added here
    this.rows = new VirtualList($("series-frame"), $("series"), {
      keyAt: (place) => this.#keyAt(place),
      fill: (row, place) => this.#fill(row, place),
      onLook: (first, last) => this.found?.look(first, last),
    });
    $("filter").addEventListener("input", () => this.#typed());
    $("series").addEventListener("change", ({ target }) => this.#changed(target));
    $("series").addEventListener("click", ({ target }) => this.#clicked(target));
    $("clear-chosen").addEventListener("click", () => this.choose([]));
    $("clear-filter").addEventListener("click", () => this.#clearFilter());
  }

  start() {
    this.found = new Found({
      ask: (query, signal) => getJson("/series/search", query, { signal }),
      onAnswer: (answer, how) => this.#answered(answer, how),
      onTrouble: (error) => this.#trouble(error instanceof Refused ? error.message : "The server cannot be reached; trying again."),
    });
    this.found.text = this.#text;
    this.timer = setInterval(() => document.hidden || this.#refreshRows(), REFRESH_MS);
    this.found.look(0, 0);
  }

  // Nothing of whom it belonged to stays.
  stop() {
    this.found?.stop();
    this.found = null;
    clearInterval(this.timer);
    clearTimeout(this.typing);
    this.known.keep(new Set());
    this.chosen.clear();
    this.rows.show(0);
  }

  series(key) {
    return this.known.get(key);
  }

  // Readings of this device are wanted although nothing of it was found yet.
  expect(device) {
    this.expected.add(device);
    this.found.renew();
    this.#tellWanted();
  }

  renamed(device, name) {
    this.known.rename(device, name);
    this.found.renew();
    this.#fillAll();
  }

  changed() {
    this.found.renew();
  }

  heard(reading) {
    if (this.known.heard(reading) || !this.found) return;
    if (this.found.whole || !this.found.total) this.found.renew(); // a new one
  }

  choose(keys) {
    this.chosen = new Set(keys);
    this.#message("");
    this.#chosenChanged();
    this.#askForChosen();
  }

  #keyAt(place) {
    const item = this.found?.at(place);
    return item && keyOf(item);
  }

  #fill(row, place) {
    const key = this.#keyAt(place) ?? (typeof row.key === "string" ? row.key : undefined);
    const one = this.known.get(key);
    if (one) fill(row, one, this.chosen.has(key));
    else fillEmpty(row);
  }

  #fillAll() {
    this.rows.draw(true);
  }

  // Twice a second: thousands of events must not become thousands of layouts.
  #refreshRows() {
    for (const [key, row] of this.rows.rows) {
      const one = this.known.get(key);
      if (one) refresh(row, one);
    }
  }

  #answered(answer, { fresh }) {
    for (const item of answer.items) this.known.told(item);
    this.#keepFew();
    $("online").textContent = format.number(answer.online);
    this.#tellFound(answer);
    this.#trouble("");
    if (fresh) this.rows.toTop();
    this.rows.show(answer.total);
    this.#tellWanted();
    const first = !this.filled && answer.items.some((item) => item.latest);
    this.filled ||= first;
    if (first) this.onFirst(answer.items);
    this.onSettled();
  }

  #keepFew() {
    const keys = new Set(this.found.items.map(keyOf));
    for (const key of this.chosen) keys.add(key);
    for (const key of this.rows.rows.keys()) keys.add(key);
    this.known.keep(keys);
  }

  #tellWanted() {
    const { whole, total, items } = this.found;
    const all = total === null || total === 0 || (whole && total <= MOST_HEARD);
    const keys = all ? null : [...new Set([...items.map(keyOf), ...this.chosen, ...this.expected])];
    const told = keys && keys.join("\r");
    if (told === this.told) return;
    this.told = told;
    this.onWanted(keys);
  }

  #tellFound({ total, devices, truncated }) {
    const { text } = this.found;
    const series = `${format.number(total)} series`;
    const told = text ? `${series} found` : `${format.number(devices)} ${devices === 1 ? "device" : "devices"}, ${series}`;
    set($("count"), truncated ? `${told}; there are more than can be searched` : told);
    $("no-series").hidden = total > 0 || text !== "";
    $("nothing-found").hidden = total > 0 || text === "";
    set($("not-found"), text);
    $("series-frame").hidden = total === 0;
  }

  get #text() {
    return $("filter").value.trim().replace(/\s+/g, " ");
  }

  #typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.found?.search(this.#text), TYPED_MS);
  }

  #clearFilter() {
    $("filter").value = "";
    $("filter").focus();
    this.#typed();
  }

  #changed(box) {
    const { key } = box.closest("li");
    if (!box.checked) this.chosen.delete(key);
    else if (!this.known.get(key)) {
      box.checked = false; // it is not known yet what would be chosen
      return;
    } else if (this.chosen.size < MOST_CHOSEN) this.chosen.add(key);
    else {
      box.checked = false;
      this.#message(`At most ${MOST_CHOSEN} series are shown together: take one away first.`);
      return;
    }
    this.#message("");
    this.#chosenChanged();
  }

  #clicked(target) {
    const more = target.closest("button.more");
    const one = more && this.known.get(more.closest("li").key);
    if (one) this.onDetails(one);
  }

  #chosenChanged() {
    const count = this.chosen.size;
    $("clear-chosen").hidden = count === 0;
    set($("clear-chosen"), `Clear ${count} chosen`);
    this.#fillAll();
    this.onChosen();
    if (this.found) this.#tellWanted();
  }

  // What was chosen by an address may lie anywhere in the list.
  async #askForChosen() {
    const devices = new Set([...this.chosen].filter((key) => !this.known.get(key)).map((key) => key.split("\n")[0]));
    for (const device of devices) {
      try {
        const { items } = await getJson("/series/search", { device, limit: 200 });
        for (const item of items) if (this.chosen.has(keyOf(item))) this.known.told(item);
      } catch {
        // It goes by its id until it is found in the list.
      }
    }
    if (devices.size) this.onLabels();
  }

  // What somebody is told stays until they choose something else; trouble, until it is over.
  #message(text) {
    this.notice = text;
    this.#say();
  }

  #trouble(text) {
    this.troubled = text;
    this.#say();
    if (text) this.onSettled();
  }

  #say() {
    set($("list-message"), this.troubled || this.notice || "");
    $("list-message").hidden = !(this.troubled || this.notice);
  }
}

function set(part, text) {
  if (part.textContent !== text) part.textContent = text;
}
