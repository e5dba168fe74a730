// A virtual list: only visible rows exist. All rows have one height, so that a row's place determines its position. A
// row with the focus is kept, however far it is scrolled away; arrow keys move from row to row.

import { makeRow } from "./rows.js";

// Rows rendered beyond both edges, so that they exist before they are visible.
const OVERSCAN = 6;
const ROW_REM = 3.75;
// Delay after the last scroll.
const SORT_MS = 150;

export class VirtualList {
  // frame: the scrolling element; list: the element with the rows in it
  // keyAt(place): the key at a place, undefined while unknown; fill(row, place)
  // onLook(first, last): these places are visible, or nearly
  constructor(frame, list, { keyAt, fill, onVisible }) {
    Object.assign(this, { frame, list, keyAt, fill, onVisible });
    this.count = this.visibleCount = 0;
    this.height = 1;
    this.rows = new Map(); // key, or place while the key is unknown → row
    this.current = 0; // the row in the tab order
    frame.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.#measure()).observe(frame);
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusin", ({ target }) => this.#makeCurrent(target.closest("li").place));
  }

  #measure() {
    this.height = Math.round(ROW_REM * parseFloat(getComputedStyle(document.documentElement).fontSize));
    this.visibleCount = Math.ceil(this.frame.clientHeight / this.height);
    this.list.style.height = `${this.count * this.height}px`;
    this.draw(true);
  }

  // Set the number of rows, and refill them.
  show(count) {
    this.count = count;
    this.current = Math.max(0, Math.min(this.current, count - 1));
    this.#measure();
  }

  toTop() {
    this.current = 0;
    this.frame.scrollTop = 0;
  }

  // Fill rows that became visible; with `all`, every row.
  draw(all = false) {
    const { frame, count, visibleCount } = this;
    const first = Math.max(0, Math.min(Math.floor(frame.scrollTop / this.height), count - visibleCount));
    const last = Math.min(count - 1, first + visibleCount);
    const made = [Math.max(0, first - OVERSCAN), Math.max(0, Math.min(count - 1, last + OVERSCAN))];
    this.#place(this.#wanted(...made), all);
    this.onVisible(...made);
  }

  // key → place
  #wanted(first, last) {
    const wanted = new Map();
    for (let place = first; place <= last && place < this.count; place += 1) wanted.set(this.keyAt(place) ?? place, place);
    const row = this.list.contains(document.activeElement) ? document.activeElement.closest("li") : null;
    if (!row || !this.count) return wanted;
    const found = this.keyAt(row.place);
    if (typeof row.key === "number" && found !== undefined && !this.rows.has(found)) {
      this.rows.delete(row.key);
      this.rows.set((row.key = found), row); // an empty row gets its series
    }
    if (!wanted.has(row.key)) wanted.set(row.key, Math.min(row.place, this.count - 1));
    return wanted;
  }

  // Rows are refilled in place: moving them in the document costs frames while scrolling.
  #place(wanted, all) {
    const unused = [...this.rows].filter(([key]) => !wanted.has(key)).map(([, row]) => row);
    const rows = new Map();
    for (const [key, place] of wanted) {
      const row = this.rows.get(key) ?? unused.pop() ?? this.list.appendChild(makeRow());
      rows.set(key, row);
      this.#put(row, key, place, all);
    }
    for (const row of unused) row.remove();
    this.rows = rows;
    clearTimeout(this.sorting);
    this.sorting = setTimeout(() => this.#sort(), SORT_MS);
  }

  // Sort the document's rows in visual order, for screen readers.
  #sort() {
    let next = this.list.firstChild;
    for (const row of [...this.rows.values()].sort((a, b) => a.place - b.place)) {
      if (row !== next && row.contains(document.activeElement)) {
        while (next !== row) next = this.#toEnd(next); // moving it would lose the focus
      }
      if (row === next) next = next.nextSibling;
      else this.list.insertBefore(row, next);
    }
  }

  #toEnd(row) {
    const next = row.nextSibling;
    this.list.append(row);
    return next;
  }

  #put(row, key, place, all) {
    const same = row.key === key && row.place === place;
    if (same && !all) return;
    Object.assign(row, { key, place });
    row.style.transform = `translateY(${place * this.height}px)`;
    row.setAttribute("aria-posinset", String(place + 1));
    row.setAttribute("aria-setsize", String(this.count));
    this.#setTabIndex(row);
    this.fill(row, place);
  }

  #setTabIndex({ parts, place }) {
    parts.box.tabIndex = parts.more.tabIndex = place === this.current ? 0 : -1;
  }

  #makeCurrent(place) {
    this.current = place;
    for (const row of this.rows.values()) this.#setTabIndex(row);
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.frame.clientHeight / this.height) - 1);
    const { place } = event.target.closest("li");
    const to = { ArrowUp: place - 1, ArrowDown: place + 1, PageUp: place - page, PageDown: place + page, Home: 0, End: this.count - 1 }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.#focus(Math.max(0, Math.min(to, this.count - 1)), event.target.tagName === "BUTTON" ? "more" : "box");
  }

  #focus(place, part) {
    const { frame, height } = this;
    const top = place * height;
    if (top < frame.scrollTop) frame.scrollTop = top;
    else if (top + height > frame.scrollTop + frame.clientHeight) frame.scrollTop = top + height - frame.clientHeight;
    this.draw();
    const row = [...this.rows.values()].find((one) => one.place === place);
    row?.parts[part].focus({ preventScroll: true });
  }
}
