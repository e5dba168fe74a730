// The results of `GET /series/search`, loaded page by page as they become visible: one request at a time, the most
// recent need first; only pages near the visible ones are kept.

const PAGE = 100;
const MAX_PAGES = 12;
const EVERY_MS = 5000;
// The interval after a change that the server may show with a delay.
const SOON_MS = 1000;
const SOON_FOR_MS = 15_000;
const TIMEOUT_MS = 20_000;

export class SearchResults {
  // fetchPage(query, signal): requests a page; onAnswer(answer), onError(error): its outcome
  constructor({ fetchPage, onAnswer, onError }) {
    Object.assign(this, { fetchPage, onAnswer, onError });
    this.text = "";
    this.total = null; // the number of matches; null until the first response
    this.pages = new Map(); // number → {items, at}
    this.visiblePages = [0, 0];
    this.soonUntil = -Infinity;
    document.addEventListener("visibilitychange", () => this.#next());
  }

  // The item at a place, undefined if not loaded.
  at(place) {
    return this.pages.get(Math.floor(place / PAGE))?.items[place % PAGE];
  }

  get items() {
    return [...this.pages.values()].flatMap((page) => page.items);
  }

  // Whether all series are loaded.
  get whole() {
    return this.total !== null && !this.text && this.items.length === this.total;
  }

  // Set the visible places; of the other pages, only the adjacent ones are loaded.
  setVisible(first, last) {
    this.visiblePages = [Math.floor(first / PAGE), Math.floor(Math.max(first, last) / PAGE)];
    if (this.pending && !this.outdated && !this.#isNear(this.pending.number)) this.pending.abort.abort();
    else this.#next();
  }

  // Search for another text. The previous results stay until the response arrives.
  search(text) {
    if (text === this.text) return;
    this.text = text;
    this.outdated = true;
    this.visiblePages = [0, 0];
    if (this.pending) this.pending.abort.abort();
    else this.#next();
  }

  // Something has changed: reload now, and more often for a while.
  refresh() {
    this.soonUntil = performance.now() + SOON_FOR_MS;
    this.#next();
  }

  stop() {
    this.stopped = true;
    this.pending?.abort.abort();
    clearTimeout(this.timer);
    this.pages.clear();
  }

  #isNear = (number) => number >= this.visiblePages[0] - 1 && number <= this.visiblePages[1] + 1;

  #next() {
    clearTimeout(this.timer);
    if (this.stopped || this.pending || document.hidden) return;
    const [number, wait] = this.#due();
    if (wait > 0) this.timer = setTimeout(() => this.#next(), wait);
    else this.#load(number);
  }

  // [the next page to load, in how many milliseconds]
  #due() {
    const now = performance.now();
    const every = now < this.soonUntil ? SOON_MS : EVERY_MS;
    let next = [0, Infinity];
    const last = this.total === null || this.outdated ? 0 : Math.max(0, Math.ceil(this.total / PAGE) - 1);
    for (let number = Math.min(this.visiblePages[0], last); number <= Math.min(this.visiblePages[1], last); number += 1) {
      const page = this.outdated ? undefined : this.pages.get(number);
      const wait = page ? page.at + every - now : -Infinity;
      if (wait < next[1]) next = [number, wait];
    }
    if (next[1] > 0 && !this.outdated) {
      const adjacent = [this.visiblePages[1] + 1, this.visiblePages[0] - 1].find((one) => one >= 0 && one <= last && !this.pages.has(one));
      if (adjacent !== undefined) next = [adjacent, 0]; // preloaded for scrolling
    }
    const backoff = (this.retryAt ?? 0) - now;
    return [next[0], Math.max(next[1], backoff)];
  }

  async #load(number) {
    const pending = (this.pending = { number, abort: new AbortController() });
    const timer = setTimeout(() => pending.abort.abort("late"), TIMEOUT_MS);
    try {
      const query = { text: this.text || undefined, offset: number * PAGE, limit: PAGE };
      this.#store(number, await this.fetchPage(query, pending.abort.signal));
    } catch (error) {
      const superseded = pending.abort.signal.aborted && pending.abort.signal.reason !== "late";
      if (!superseded && !this.stopped) {
        this.retryAt = performance.now() + Math.max(EVERY_MS, error.retryAfterMs ?? 0);
        this.onError(error);
      }
    } finally {
      clearTimeout(timer);
      this.pending = null;
      this.#next();
    }
  }

  #store(number, answer) {
    if (this.stopped) return;
    if (this.outdated) this.pages.clear();
    const fresh = this.outdated || this.total === null;
    this.outdated = false;
    // Places have shifted: other pages are shown until they are reloaded.
    if (answer.total !== this.total) for (const page of this.pages.values()) page.at = -Infinity;
    this.total = answer.total;
    this.pages.set(number, { items: answer.items, at: performance.now() });
    this.#prune();
    this.onAnswer(answer, { fresh });
  }

  #prune() {
    const middle = (this.visiblePages[0] + this.visiblePages[1]) / 2;
    const far = [...this.pages.keys()].sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle));
    while (this.pages.size > MAX_PAGES) this.pages.delete(far.shift());
  }
}
