// The fields of a rule's form: which ones an operation has, and a rule's JSON from and to them. They are named as the
// server names what is wrong.

import { read, readNumber, written } from "./rule-text.js";

const WHEN_FIELDS = {
  above: ["value"],
  below: ["value"],
  outside: ["low", "high"],
  equals: ["value"],
  changed: [],
  rate: ["value", "perSeconds"],
  silent: [],
  gap: [],
};
const VALUE_LABELS = { above: "Above", below: "Below", equals: "Equal to", rate: "By more than" };
const WITH_HYSTERESIS = ["above", "below", "outside"];
const NO_NUMBER = "Write a number, as in 80 or 0.5.";

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

export class RuleFields {
  // picker: the devices that are chosen
  constructor(form, picker) {
    Object.assign(this, { form, picker });
    this.parts = Object.fromEntries([...form.querySelectorAll("[data-part]")].map((one) => [one.dataset.part, one]));
    for (const name of ["when.op", "devices", "scheduled"]) {
      form.elements[name].addEventListener("change", () => this.showParts());
    }
  }

  // Show the parts that belong to what is chosen.
  showParts() {
    const { elements } = this.form;
    const op = elements["when.op"].value;
    const shown = new Set([...WHEN_FIELDS[op], elements.devices.value]);
    if (WITH_HYSTERESIS.includes(op)) shown.add("hysteresis");
    if (elements.scheduled.checked) shown.add("schedule");
    for (const [name, part] of Object.entries(this.parts)) part.hidden = !shown.has(name);
    this.form.querySelector("[for=rule-value]").textContent = VALUE_LABELS[op] ?? "Value";
    this.form.querySelector("#rule-value-hint").hidden = op !== "equals";
    const forLabel = op === "silent" ? "After how many seconds" : "For how many seconds, at least";
    this.form.querySelector("[for=rule-for]").textContent = forLabel;
  }

  // Fill the fields with a rule; without one, with the defaults of `zone` and `sensorType`.
  fill(rule, { zone, sensorType }) {
    const { elements } = this.form;
    this.form.reset();
    const set = (name, value) => (elements[name].value = value ?? "");
    set("sensorType", rule?.sensorType ?? sensorType);
    set("schedule.zone", rule?.schedule?.zone ?? zone);
    this.picker.show(rule?.devices.ids ?? []);
    if (rule) this.#fillRule(rule, set);
    this.showParts();
  }

  #fillRule(rule, set) {
    const { elements } = this.form;
    const { name, severity, devices, when, forSeconds, hysteresis, schedule, notify = [], message } = rule;
    for (const [field, value] of Object.entries({ name, severity, message })) set(field, value);
    set("devices", typeof devices === "string" ? devices : devices.ids ? "ids" : "name");
    set("devices.name", devices.name);
    for (const [field, value] of Object.entries(when)) set(`when.${field}`, field === "value" ? written(value) : value);
    set("forSeconds", forSeconds || "");
    set("hysteresis", hysteresis || "");
    elements.scheduled.checked = Boolean(schedule);
    if (schedule) {
      for (const box of elements["schedule.days"]) box.checked = schedule.days.includes(box.value);
      set("schedule.from", schedule.from);
      set("schedule.to", schedule.to);
    }
    for (const kind of ["feed", "email"]) elements[kind].checked = notify.some((one) => one.kind === kind);
    set("webhooks", notify.filter(({ kind }) => kind === "webhook").map(({ url }) => url).join("\n"));
  }

  // The rule as JSON; throws errors for its fields.
  body() {
    const { elements } = this.form;
    const errors = [];
    const text = (name) => elements[name].value.trim();
    const number = (name) => {
      const found = readNumber(elements[name].value);
      if (Number.isNaN(found)) errors.push({ field: name, message: NO_NUMBER });
      return found;
    };
    const op = text("when.op");
    const when = { op };
    for (const field of WHEN_FIELDS[op]) when[field] = op === "equals" ? read(text("when.value")) : number(`when.${field}`);
    const body = {
      name: text("name"),
      severity: text("severity"),
      devices: this.#devices(errors),
      sensorType: text("sensorType"),
      when,
      forSeconds: number("forSeconds"),
      hysteresis: WITH_HYSTERESIS.includes(op) ? number("hysteresis") : undefined,
      schedule: elements.scheduled.checked ? this.#schedule(text) : undefined,
      notify: this.#notify(),
      message: text("message") || undefined,
    };
    if (errors.length) throw { errors };
    return body;
  }

  #devices(errors) {
    const which = this.form.elements.devices.value;
    if (which === "name") return { name: this.form.elements["devices.name"].value.trim() };
    if (which === "all") return "all";
    if (!this.picker.ids.length) errors.push({ field: "devices.ids", message: "Add at least one device." });
    return { ids: this.picker.ids };
  }

  #schedule(text) {
    const days = [...this.form.elements["schedule.days"]].filter((box) => box.checked).map((box) => box.value);
    return { zone: text("schedule.zone"), days, from: text("schedule.from"), to: text("schedule.to") };
  }

  #notify() {
    const { feed, email, webhooks } = this.form.elements;
    const kinds = [feed, email].filter((box) => box.checked).map(({ name }) => ({ kind: name }));
    return [...kinds, ...lines(webhooks.value).map((url) => ({ kind: "webhook", url }))];
  }

  // Name what is wrong with a webhook, of which there are several, and with a device, in the one field that they have.
  withPlaces(error) {
    const kinds = this.#notify().map(({ kind }) => kind);
    for (const each of error.errors ?? []) {
      const at = /^notify\[(\d+)\]/.exec(each.field)?.[1];
      if (at !== undefined) {
        const line = at - kinds.indexOf("webhook") + 1;
        if (kinds[at] === "webhook") each.message = `Line ${line}: ${each.message}`;
        each.field = kinds[at] === "webhook" ? "webhooks" : kinds[at];
      } else if (each.field.startsWith("devices.ids")) each.field = "devices.ids";
      else if (each.field.startsWith("schedule.days")) each.field = "schedule.from";
    }
    return error;
  }
}
