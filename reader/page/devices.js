// The list of series: searched by the server, rendered as far as visible, and selected for the chart.

import { MOST_CHOSEN } from "./chart-card.js";
import * as format from "./format.js";
import { SearchResults } from "./search-results.js";
import { KnownSeries, keyOf } from "./known-series.js";
import { fill, fillEmpty, refresh } from "./rows.js";
import { getJson, ApiError } from "./session.js";
import { VirtualList } from "./virtual-list.js";

export { keyOf };

const REFRESH_MS = 500;
const TYPED_MS = 200;
// Up to this many series, all are followed live; beyond it, only those on loaded pages.
const MAX_FOLLOWED = 1000;

const $ = (id) => document.getElementById(id);

export class DeviceList {
  // onChosen(): the selection changed; onWanted(keys): series or devices to follow live, null for all;
  // onFirst(items): the first page that has readings; onLabels(): names of selected series are known; onDetails(series)
  // onSettled(): the list is shown, or an error; called repeatedly
  constructor({ onChosen, onWanted, onFirst, onLabels, onDetails, onSettled }) {
    Object.assign(this, { onChosen, onWanted, onFirst, onLabels, onDetails, onSettled });
    this.known = new KnownSeries();
    this.chosen = new Set();
    this.expected = new Set(); // devices added here
    this.rows = new VirtualList($("series-frame"), $("series"), {
      keyAt: (place) => this.#keyAt(place),
      fill: (row, place) => this.#fill(row, place),
      onVisible: (first, last) => this.results?.setVisible(first, last),
    });
    $("filter").addEventListener("input", () => this.#typed());
    $("series").addEventListener("change", ({ target }) => this.#changed(target));
    $("series").addEventListener("click", ({ target }) => this.#clicked(target));
    $("clear-chosen").addEventListener("click", () => this.choose([]));
    $("clear-filter").addEventListener("click", () => this.#clearFilter());
  }

  start() {
    this.results = new SearchResults({
      fetchPage: (query, signal) => getJson("/series/search", query, { signal }),
      onAnswer: (answer, how) => this.#onResults(answer, how),
      onError: (error) => this.#showError(error instanceof ApiError ? error.message : "The server cannot be reached; trying again."),
    });
    this.results.text = this.#text;
    this.timer = setInterval(() => document.hidden || this.#refreshRows(), REFRESH_MS);
    this.results.setVisible(0, 0);
  }

  // Clears everything of the session.
  stop() {
    this.results?.stop();
    this.results = null;
    clearInterval(this.timer);
    clearTimeout(this.typing);
    this.known.keep(new Set());
    this.chosen.clear();
    this.rows.show(0);
  }

  series(key) {
    return this.known.get(key);
  }

  // Follow a device before any of its series is found.
  expect(device) {
    this.expected.add(device);
    this.results.refresh();
    this.#updateWanted();
  }

  renamed(device, name) {
    this.known.rename(device, name);
    this.results.refresh();
    this.#fillAll();
  }

  changed() {
    this.results.refresh();
  }

  receive(reading) {
    if (this.known.receive(reading) || !this.results) return;
    if (this.results.whole || !this.results.total) this.results.refresh(); // a new series
  }

  choose(keys) {
    this.chosen = new Set(keys);
    this.#message("");
    this.#chosenChanged();
    this.#loadChosen();
  }

  #keyAt(place) {
    const item = this.results?.at(place);
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

  // Twice a second: thousands of events must not cause thousands of layouts.
  #refreshRows() {
    for (const [key, row] of this.rows.rows) {
      const one = this.known.get(key);
      if (one) refresh(row, one);
    }
  }

  #onResults(answer, { fresh }) {
    for (const item of answer.items) this.known.update(item);
    this.#prune();
    $("online").textContent = format.number(answer.online);
    this.#showCounts(answer);
    this.#showError("");
    if (fresh) this.rows.toTop();
    this.rows.show(answer.total);
    this.#updateWanted();
    const first = !this.filled && answer.items.some((item) => item.latest);
    this.filled ||= first;
    if (first) this.onFirst(answer.items);
    this.onSettled();
  }

  #prune() {
    const keys = new Set(this.results.items.map(keyOf));
    for (const key of this.chosen) keys.add(key);
    for (const key of this.rows.rows.keys()) keys.add(key);
    this.known.keep(keys);
  }

  #updateWanted() {
    const { whole, total, items } = this.results;
    const all = total === null || total === 0 || (whole && total <= MAX_FOLLOWED);
    const keys = all ? null : [...new Set([...items.map(keyOf), ...this.chosen, ...this.expected])];
    const wantedText = keys && keys.join("\r");
    if (wantedText === this.wantedText) return;
    this.wantedText = wantedText;
    this.onWanted(keys);
  }

  #showCounts({ total, devices, truncated }) {
    const { text } = this.results;
    const series = `${format.number(total)} series`;
    const summary = text ? `${series} found` : `${format.number(devices)} ${devices === 1 ? "device" : "devices"}, ${series}`;
    set($("count"), truncated ? `${summary}; there are more than can be searched` : summary);
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
    this.typing = setTimeout(() => this.results?.search(this.#text), TYPED_MS);
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
      box.checked = false; // its row is not loaded yet
      return;
    } else if (this.chosen.size < MOST_CHOSEN) this.chosen.add(key);
    else {
      box.checked = false;
      this.#message(`At most ${MOST_CHOSEN} series are shown together: remove one first.`);
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
    if (this.results) this.#updateWanted();
  }

  // Series selected by the URL may be anywhere in the list.
  async #loadChosen() {
    const devices = new Set([...this.chosen].filter((key) => !this.known.get(key)).map((key) => key.split("\n")[0]));
    for (const device of devices) {
      try {
        const { items } = await getJson("/series/search", { device, limit: 200 });
        for (const item of items) if (this.chosen.has(keyOf(item))) this.known.update(item);
      } catch {
        // Its id is shown until it is found in the list.
      }
    }
    if (devices.size) this.onLabels();
  }

  // A message stays until the next selection; an error, until it is resolved.
  #message(text) {
    this.notice = text;
    this.#showMessages();
  }

  #showError(text) {
    this.errorText = text;
    this.#showMessages();
    if (text) this.onSettled();
  }

  #showMessages() {
    set($("list-message"), this.errorText || this.notice || "");
    $("list-message").hidden = !(this.errorText || this.notice);
  }
}

function set(part, text) {
  if (part.textContent !== text) part.textContent = text;
}
