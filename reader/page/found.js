// What `GET /series/search` finds, page by page as it is looked at: one question at a time, the newest wish first, and
// only the pages near to what is seen are kept.

const PAGE = 100;
const MOST_PAGES = 12;
const EVERY_MS = 5000;
// After something was changed that the server may tell a little later.
const SOON_MS = 1000;
const SOON_FOR_MS = 15_000;
const WAITS_MS = 20_000;

export class Found {
  // ask(query, signal): an answer of the server's; onAnswer(answer): it came; onTrouble(error): it did not
  constructor({ ask, onAnswer, onTrouble }) {
    Object.assign(this, { ask, onAnswer, onTrouble });
    this.text = "";
    this.total = null; // of what was searched; null until the first answer
    this.pages = new Map(); // number → {items, at}
    this.seen = [0, 0];
    this.soonUntil = -Infinity;
    document.addEventListener("visibilitychange", () => this.#next());
  }

  // The item at a place, undefined where it was not loaded.
  at(place) {
    return this.pages.get(Math.floor(place / PAGE))?.items[place % PAGE];
  }

  get items() {
    return [...this.pages.values()].flatMap((page) => page.items);
  }

  // Whether all that there is, is here.
  get whole() {
    return this.total !== null && !this.text && this.items.length === this.total;
  }

  // These places are seen; of the pages that are not, only the next ones are asked for.
  look(first, last) {
    this.seen = [Math.floor(first / PAGE), Math.floor(Math.max(first, last) / PAGE)];
    if (this.asked && !this.outdated && !this.#isNear(this.asked.number)) this.asked.abort.abort();
    else this.#next();
  }

  // Find another text. What was found before stays until the answer is there.
  search(text) {
    if (text === this.text) return;
    this.text = text;
    this.outdated = true;
    this.seen = [0, 0];
    if (this.asked) this.asked.abort.abort();
    else this.#next();
  }

  // Something has changed: ask again now, and for a while more often.
  renew() {
    this.soonUntil = performance.now() + SOON_FOR_MS;
    this.#next();
  }

  stop() {
    this.stopped = true;
    this.asked?.abort.abort();
    clearTimeout(this.timer);
    this.pages.clear();
  }

  #isNear = (number) => number >= this.seen[0] - 1 && number <= this.seen[1] + 1;

  #next() {
    clearTimeout(this.timer);
    if (this.stopped || this.asked || document.hidden) return;
    const [number, wait] = this.#due();
    if (wait > 0) this.timer = setTimeout(() => this.#next(), wait);
    else this.#askFor(number);
  }

  // [the page that is asked for next, in how many milliseconds]
  #due() {
    const now = performance.now();
    const every = now < this.soonUntil ? SOON_MS : EVERY_MS;
    let next = [0, Infinity];
    const last = this.total === null || this.outdated ? 0 : Math.max(0, Math.ceil(this.total / PAGE) - 1);
    for (let number = Math.min(this.seen[0], last); number <= Math.min(this.seen[1], last); number += 1) {
      const page = this.outdated ? undefined : this.pages.get(number);
      const wait = page ? page.at + every - now : -Infinity;
      if (wait < next[1]) next = [number, wait];
    }
    if (next[1] > 0 && !this.outdated) {
      const beside = [this.seen[1] + 1, this.seen[0] - 1].find((one) => one >= 0 && one <= last && !this.pages.has(one));
      if (beside !== undefined) next = [beside, 0]; // who scrolls there finds it
    }
    const rest = (this.troubledUntil ?? 0) - now;
    return [next[0], Math.max(next[1], rest)];
  }

  async #askFor(number) {
    const asked = (this.asked = { number, abort: new AbortController() });
    const timer = setTimeout(() => asked.abort.abort("late"), WAITS_MS);
    try {
      const query = { text: this.text || undefined, offset: number * PAGE, limit: PAGE };
      this.#take(number, await this.ask(query, asked.abort.signal));
    } catch (error) {
      const wish = asked.abort.signal.aborted && asked.abort.signal.reason !== "late";
      if (!wish && !this.stopped) {
        this.troubledUntil = performance.now() + Math.max(EVERY_MS, error.retryAfterMs ?? 0);
        this.onTrouble(error);
      }
    } finally {
      clearTimeout(timer);
      this.asked = null;
      this.#next();
    }
  }

  #take(number, answer) {
    if (this.stopped) return;
    if (this.outdated) this.pages.clear();
    const fresh = this.outdated || this.total === null;
    this.outdated = false;
    // Places have moved: what is kept of other pages is shown until it was asked for again.
    if (answer.total !== this.total) for (const page of this.pages.values()) page.at = -Infinity;
    this.total = answer.total;
    this.pages.set(number, { items: answer.items, at: performance.now() });
    this.#keepFew();
    this.onAnswer(answer, { fresh });
  }

  #keepFew() {
    const middle = (this.seen[0] + this.seen[1]) / 2;
    const far = [...this.pages.keys()].sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle));
    while (this.pages.size > MOST_PAGES) this.pages.delete(far.shift());
  }
}
