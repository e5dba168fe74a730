// The ledger: notifications and what became of them, the newest first.

import * as format from "./format.js";
import { part, showRows } from "./kept-rows.js";
import { attempt, say, set } from "./messages.js";
import { getJson, send } from "./session.js";

const PAGE = 20;
const STATES = { pending: "Pending", delivered: "Delivered", dead: "Given up" };
const DOTS = { pending: "wait", delivered: "on", dead: "bad" };

const $ = (id) => document.getElementById(id);
// Why there was no HTTP status.
const REASONS = {
  timeout: "no answer in time",
  connection: "no connection",
  certificate: "certificate not valid",
  name_not_found: "name not found",
  address_refused: "address refused",
  no_secret: "the rule is gone",
};
const attempts = (count) => (count === 1 ? "1 attempt" : `${format.number(count)} attempts`);

export class Deliveries {
  // nameOf(id): a rule's name
  constructor({ nameOf }) {
    this.nameOf = nameOf;
    this.items = [];
    $("delivery-state").addEventListener("change", () => this.load());
    $("deliveries-more").addEventListener("click", () => this.#loadMore());
    $("deliveries").addEventListener("click", ({ target }) => target.tagName === "BUTTON" && this.#replay(target));
  }

  clear() {
    this.request = null;
    this.items = [];
    this.cursor = undefined;
    this.#draw();
    this.#say("");
  }

  // As many as are shown, anew.
  async load() {
    await this.#attempt(() => this.#fetch(Math.max(PAGE, this.items.length)));
  }

  // Whether looking again finds more than the reader has asked for.
  get isFirstPage() {
    return this.items.length <= PAGE;
  }

  async #fetch(limit, cursor) {
    const state = $("delivery-state").value || undefined;
    const request = (this.request = {});
    const { items, nextCursor } = await getJson("/alarms/deliveries", { state, limit, cursor });
    if (request !== this.request) return; // something else was asked for meanwhile
    this.items = cursor ? [...this.items, ...items] : items;
    this.cursor = nextCursor;
    this.#draw();
    this.#say(this.items.length ? "" : "None.");
  }

  async #loadMore() {
    const before = this.items.length;
    await this.#attempt(() => this.#fetch(PAGE, this.cursor));
    if (!this.cursor) $("deliveries").children[before]?.focus();
  }

  #draw() {
    showRows($("deliveries"), this.items, { key: ({ id }) => id, make: makeRow, fill: (row, one) => this.#fill(row, one) });
    $("deliveries-more").hidden = !this.cursor;
  }

  #fill(row, one) {
    const { dot, state, rule, about, replay } = row.parts;
    dot.className = `dot ${DOTS[one.state]}`;
    set(state, STATES[one.state]);
    set(rule, this.nameOf(one.rule));
    set(about, aboutText(one));
    replay.hidden = one.state !== "dead";
    const made = format.time(Date.parse(one.createdAt));
    replay.setAttribute("aria-label", `Replay the notification of ${this.nameOf(one.rule)}, ${made}`);
  }

  async #replay(button) {
    const { key } = button.closest("li").dataset;
    await this.#attempt(async () => {
      await send("POST", `/alarms/deliveries/${key}/replay`);
      await this.#fetch(Math.max(PAGE, this.items.length));
      this.#say("It is delivered again.");
    });
    if (button.hidden || !button.isConnected) $("delivery-state").focus();
  }

  #attempt(call) {
    return attempt($("deliveries-message"), call);
  }

  #say(text) {
    say($("deliveries-message"), text);
  }
}

// When, to whom, and what became of it.
function aboutText({ createdAt, target, state, attempts: count, lastStatus, dueAt, finishedAt }) {
  const parts = [format.time(Date.parse(createdAt)), target, attempts(count)];
  if (lastStatus) parts.push(statusText(lastStatus));
  if (state === "pending" && dueAt) parts.push(`next at ${format.time(Date.parse(dueAt))}`);
  if (finishedAt) parts.push(`${state === "dead" ? "given up" : "delivered"} ${format.time(Date.parse(finishedAt))}`);
  return parts.join(" · ");
}

// An answer's status, or why there was none.
function statusText(status) {
  return /^\d/.test(status) ? `answer ${status}` : (REASONS[status] ?? status.replaceAll("_", " "));
}

function makeRow() {
  const row = part("li", "");
  row.tabIndex = -1;
  const text = row.appendChild(part("div", "what"));
  const head = text.appendChild(part("div", ""));
  const dot = head.appendChild(part("span", "dot"));
  const state = head.appendChild(part("span", ""));
  head.append(" · ");
  const rule = head.appendChild(part("span", "name"));
  const about = text.appendChild(part("div", "muted small"));
  const replay = row.appendChild(part("button", "small-button", "Replay"));
  row.parts = { dot, state, rule, about, replay };
  return row;
}
