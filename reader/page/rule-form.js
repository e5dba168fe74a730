// The dialog in which a rule is made or changed: tried on the last day first, then saved.

import { AlarmEmail } from "./alarm-email.js";
import { DevicePicker } from "./device-picker.js";
import { stringify } from "./exact-json.js";
import { clear, onSubmit } from "./forms.js";
import { RuleFields } from "./rule-fields.js";
import { RuleTrial } from "./rule-trial.js";
import { send } from "./session.js";
import { browserZone } from "./zone.js";

const $ = (id) => document.getElementById(id);

export class RuleForm {
  // details: names of devices; chart: {shown(), look(keys)}; onTried(trial); onSaved(rule)
  constructor({ details, chart, onTried, onSaved }) {
    Object.assign(this, { chart, onTried, onSaved });
    this.form = $("rule-form");
    this.picker = new DevicePicker({ details, onChanged: () => this.#changed() });
    this.fields = new RuleFields(this.form, this.picker);
    this.trial = new RuleTrial({ details, onTried: (trial) => this.#tried(trial) });
    this.email = new AlarmEmail();
    $("rule-zone").append(...Intl.supportedValuesOf("timeZone").map((name) => new Option(name)));
    onSubmit(this.form, (_, button) => this.#submit(button.value));
    this.form.addEventListener("input", ({ target }) => target.name && this.#changed());
    this.form.elements.devices.addEventListener("change", () => this.#suggestDevices());
    $("rule").addEventListener("close", () => this.looking || this.trial.clear());
    $("trial-look").addEventListener("click", () => this.#look());
    $("trial-back").addEventListener("click", () => this.#back());
    $("trial-done").addEventListener("click", () => this.#done());
  }

  // Change a rule, or make one.
  open(rule) {
    const [first] = this.chart.shown();
    this.#useZone(rule?.schedule?.zone);
    this.fields.fill(rule, { zone: browserZone(), sensorType: first?.sensorType });
    clear(this.form);
    this.rule = rule;
    this.before = rule && this.fields.body();
    $("rule-title").textContent = rule ? "Change the rule" : "New rule";
    this.trial.clear();
    $("rule").showModal();
    $("rule").scrollTop = 0;
    this.email.load();
  }

  // A zone that the browser knows but does not list, as UTC.
  #useZone(name) {
    for (const zone of [name, browserZone(), "UTC"]) {
      const listed = [...$("rule-zone").options].some((option) => option.value === zone);
      if (zone && !listed) $("rule-zone").append(new Option(zone));
    }
  }

  // The devices in the chart are likely meant.
  #suggestDevices() {
    if (this.form.elements.devices.value !== "ids" || this.picker.ids.length) return;
    this.picker.show([...new Set(this.chart.shown().map(({ device }) => device))]);
  }

  // What was tried is another rule now.
  #changed() {
    if (this.trial.trial) this.trial.clear();
  }

  #tried(trial) {
    $("rule-save").textContent = trial ? "Save" : "Save without trying";
    $("rule-save").classList.toggle("primary", Boolean(trial));
    $("rule-try").classList.toggle("primary", !trial);
    if (!trial) this.#endLooking();
    this.onTried(trial);
  }

  async #submit(how) {
    try {
      if (how === "try") await this.#try(this.fields.body());
      else await this.#save(this.fields.body());
    } catch (error) {
      throw this.fields.withPlaces(error);
    }
  }

  async #try(body) {
    await this.trial.run(body);
    $("trial-result").focus();
    this.form.querySelector(".actions").scrollIntoView({ block: "nearest" });
  }

  async #save(body) {
    const saved = this.rule ? await this.#change(body) : await send("POST", "/alarms/rules", body);
    $("rule").close();
    this.onSaved(saved);
  }

  // Sends only changed fields: what is not shown here stays as it is.
  #change(body) {
    const text = (value) => stringify(value ?? null);
    const changed = Object.keys(body).filter((field) => text(body[field]) !== text(this.before[field]));
    if (!changed.length) return this.rule;
    const changes = Object.fromEntries(changed.map((field) => [field, body[field] ?? null]));
    return send("PATCH", `/alarms/rules/${this.rule.id}`, changes);
  }

  // Leave the dialogs for the chart, and come back to them as they are.
  #look() {
    this.looking = true;
    $("trial-bar").hidden = false;
    $("trial-bar-text").textContent = `${this.trial.trial.name}: ${$("trial-result").textContent}`;
    for (const id of ["rule", "alarms"]) $(id).close();
    this.chart.look(this.trial.keys);
    $("trial-back").focus();
  }

  #back() {
    $("alarms-open").focus(); // closing a dialog returns the focus to what had it
    this.#endLooking();
    $("alarms").showModal();
    $("new-rule").focus();
    $("rule").showModal();
    $("rule-save").focus();
  }

  #done() {
    this.trial.clear();
    $("alarms-open").focus();
  }

  #endLooking() {
    this.looking = false;
    $("trial-bar").hidden = true;
  }
}
