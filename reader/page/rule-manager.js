// The dialog of alarms: the list of rules, which are made, changed and removed here, and the ledger.

import { bindCopyButton } from "./clipboard.js";
import { confirm } from "./confirm.js";
import { Deliveries } from "./deliveries.js";
import { part, showRows } from "./kept-rows.js";
import { attempt, say, set } from "./messages.js";
import { repeat } from "./polling.js";
import { RuleForm } from "./rule-form.js";
import { ruleText } from "./rule-text.js";
import { severityMark, setSeverity } from "./severity.js";
import { allows, getJson, readOnly, send } from "./session.js";

const NO_RULES = "None yet. A rule tells when a value leaves its bounds, or when nothing comes.";
const MOST_RULES = 1000;
const LEDGER_EVERY_MS = 5000;

const $ = (id) => document.getElementById(id);

export class RuleManager {
  // details: names of devices; chart, onTried: as in RuleForm; onChanged(): alarms may have ended
  constructor({ details, chart, onTried, onChanged }) {
    this.rules = [];
    this.onChanged = onChanged;
    this.form = new RuleForm({ details, chart, onTried, onSaved: (rule) => this.#saved(rule) });
    this.deliveries = new Deliveries({ nameOf: (id) => this.#nameOf(id) });
    $("alarms-open").addEventListener("click", () => this.#open());
    $("new-rule").addEventListener("click", () => this.form.open());
    $("rules").addEventListener("click", ({ target }) => this.#clicked(target));
    for (const button of document.querySelectorAll("[data-pane]")) {
      button.addEventListener("click", () => this.#showPane(button.dataset.pane));
    }
    $("alarms").addEventListener("close", () => this.#closed());
    bindCopyButton($("copy-secret"), () => $("secret").textContent);
  }

  // Offer what the token allows.
  start() {
    $("alarms-open").hidden = readOnly() || !allows("alarms:manage");
  }

  // Clears everything of the session.
  stop() {
    this.form.trial.clear();
    this.rules = [];
    this.#draw();
    this.deliveries.clear();
  }

  #open() {
    $("alarms").showModal();
    this.#showPane("rules");
    this.#load();
  }

  #closed() {
    this.endPolling?.();
    this.#hideSecret();
    this.deliveries.clear();
  }

  #showPane(name) {
    for (const button of document.querySelectorAll("[data-pane]")) {
      button.setAttribute("aria-pressed", String(button.dataset.pane === name));
    }
    $("rules-pane").hidden = name !== "rules";
    $("ledger-pane").hidden = name !== "ledger";
    this.endPolling?.();
    if (name !== "ledger") return;
    this.endPolling = repeat(LEDGER_EVERY_MS, async () => {
      if (this.deliveries.isFirstPage) await this.deliveries.load();
    });
  }

  async #load() {
    await this.#attempt(async () => {
      this.rules = (await getJson("/alarms/rules", { limit: MOST_RULES })).items;
      this.#draw();
      this.#say(this.rules.length ? "" : NO_RULES);
    });
  }

  #draw() {
    showRows($("rules"), this.rules, { key: ({ id }) => id, make: makeRow, fill });
  }

  #nameOf(id) {
    return this.rules.find((rule) => rule.id === id)?.name ?? "a removed rule";
  }

  #clicked(target) {
    const row = target.closest("li");
    const rule = this.rules.find(({ id }) => id === row?.dataset.key);
    if (target === row?.parts.change) this.form.open(rule);
    if (target === row?.parts.rotate) this.#rotate(rule);
    if (target === row?.parts.remove) this.#remove(rule);
  }

  async #saved(rule) {
    this.#hideSecret();
    await this.#load();
    this.#say(`Saved: ${rule.name}. It applies to what is stored from a few seconds from now on.`);
    if (rule.secret) this.#showSecret(rule.name, rule.secret);
    else this.#row(rule.id)?.parts.change.focus();
    this.onChanged();
  }

  #row(id) {
    return [...$("rules").children].find((row) => row.dataset.key === id);
  }

  async #rotate(rule) {
    const consequence = "For a day, its webhooks are signed with both the old and the new secret.";
    if (!(await confirm(`Make a new secret for ${rule.name}?`, consequence, "Make it"))) return;
    await this.#attempt(async () => {
      const { secret } = await send("POST", `/alarms/rules/${rule.id}/secret`);
      this.#say("");
      this.#showSecret(rule.name, secret);
    });
  }

  async #remove(rule) {
    const consequence = "Its alarms end. Their histories stay, and notifications that are due are still sent.";
    if (!(await confirm(`Remove ${rule.name}?`, consequence, "Remove the rule"))) return;
    await this.#attempt(async () => {
      await send("DELETE", `/alarms/rules/${rule.id}`);
      this.#hideSecret();
      await this.#load();
      $("new-rule").focus();
      this.onChanged();
    });
  }

  #showSecret(name, secret) {
    set($("secret-title"), `The secret of ${name}, shown only once`);
    $("secret").textContent = secret;
    $("secret-part").hidden = false;
    $("copy-secret").focus();
  }

  #hideSecret() {
    $("secret").textContent = "";
    $("secret-part").hidden = true;
  }

  #attempt(call) {
    return attempt($("rules-message"), call);
  }

  #say(text) {
    say($("rules-message"), text);
  }
}

function makeRow() {
  const row = part("li", "");
  const what = row.appendChild(part("div", "what"));
  const head = what.appendChild(part("div", "rule-head"));
  const mark = head.appendChild(severityMark());
  const name = head.appendChild(part("span", "name"));
  const text = what.appendChild(part("div", "muted small"));
  const actions = row.appendChild(part("div", "row-actions"));
  const change = actions.appendChild(part("button", "small-button", "Change"));
  const rotate = actions.appendChild(part("button", "small-button", "New secret…"));
  const remove = actions.appendChild(part("button", "small-button danger", "Remove…"));
  row.parts = { mark, name, text, change, rotate, remove };
  return row;
}

function fill({ parts }, rule) {
  setSeverity(parts.mark, rule.severity);
  set(parts.name, rule.name);
  set(parts.text, ruleText(rule));
  parts.rotate.hidden = !(rule.notify ?? []).some(({ kind }) => kind === "webhook");
  for (const [button, does] of [["change", "Change"], ["rotate", "New secret for"], ["remove", "Remove"]]) {
    parts[button].setAttribute("aria-label", `${does} ${rule.name}`);
  }
}
