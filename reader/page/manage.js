// Devices are managed where people look: added, connected, renamed, their tokens revoked, removed.

import { Connect } from "./connect.js";
import { copies } from "./copying.js";
import { clear, onSubmit } from "./fields.js";
import * as format from "./format.js";
import { keyOf, label } from "./known.js";
import { aheadText, stateText } from "./rows.js";
import { getJson, Refused, send } from "./session.js";

const POSITION = /^(-?\d+(?:\.\d+)?)\s*[,;]\s*(-?\d+(?:\.\d+)?)(?:\s*[,;]\s*(-?\d+(?:\.\d+)?))?$/;

const $ = (id) => document.getElementById(id);
const pathOf = (device) => `/devices/${encodeURIComponent(device)}`;

// Two or three numbers are a position in degrees and metres, anything else is a name.
function locationOf(text) {
  const found = POSITION.exec(text.trim());
  if (!found) return text.trim();
  const [lat, lon, alt] = found.slice(1).map((part) => (part === undefined ? undefined : Number(part)));
  return { lat, lon, alt };
}

function locationText(of) {
  if (!of) return "";
  return typeof of === "string" ? of : [of.lat, of.lon, of.alt].filter((one) => one !== undefined).join(", ");
}

function bodyOf({ name, sensorType, location }) {
  return { name: name.trim() || undefined, sensorType: sensorType.trim(), location: locationOf(location) };
}

export class Manage {
  // onAdded(series), onRenamed(device, name), onChanged(): what the list should know
  constructor({ onAdded, onRenamed, onChanged }) {
    Object.assign(this, { onAdded, onRenamed, onChanged });
    this.connect = new Connect();
    for (const button of document.querySelectorAll("[data-add-device]")) {
      button.addEventListener("click", () => this.#open($("add-device"), $("add-device-form")));
    }
    for (const button of document.querySelectorAll("dialog [data-close]")) {
      button.addEventListener("click", () => button.closest("dialog").close());
    }
    $("device").addEventListener("close", () => this.connect.clear());
    onSubmit($("add-device-form"), (values) => this.#add(values));
    onSubmit($("change-device-form"), (values) => this.#change(values));
    $("new-token").addEventListener("click", () => this.#do(() => this.connect.issue(this.one.device)));
    $("revoke-tokens").addEventListener("click", () => this.#revoke());
    $("remove-device").addEventListener("click", () => this.#remove());
    copies($("copy-id"), () => this.one.device);
  }

  heard(reading) {
    this.connect.heard(reading);
    if ($("device").open && this.one?.device === reading.device) this.#tellState();
  }

  close() {
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  }

  // Show a series' device; `registered` is what is known of it, else it is asked for.
  async details(one, registered) {
    this.one = one;
    $("device-title").textContent = label(one);
    $("device-id").textContent = one.device;
    $("registered").hidden = $("not-registered").hidden = true;
    $("change-device").open = false;
    this.#told("");
    this.#tellState();
    if (!$("device").open) $("device").showModal();
    await this.#do(async () => {
      const found = registered ?? (await this.#asked(one.device));
      if (this.one !== one) return;
      $("registered").hidden = !found;
      $("not-registered").hidden = Boolean(found);
      if (found) this.#fill(found);
    });
  }

  async #asked(device) {
    try {
      return await getJson(pathOf(device));
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  #fill({ name, sensorType, location }) {
    const { elements } = $("change-device-form");
    clear($("change-device-form"));
    this.shown = { name, sensorType, location: locationText(location) };
    for (const [field, text] of Object.entries(this.shown)) elements[field].value = text;
  }

  #tellState() {
    $("device-state").textContent = stateText(this.one);
    const { latest, ahead, sensorType } = this.one;
    const newest = latest ? `${format.value(latest.value, latest.unit)}, ${format.time(Date.parse(latest.ts))}` : "none yet";
    $("device-latest").textContent = ahead ? `${newest}. And ${aheadText(ahead)}: its clock may be wrong.` : newest;
    $("device-sensor").textContent = sensorType;
  }

  #open(dialog, form) {
    form.reset();
    clear(form);
    dialog.showModal();
  }

  async #add(values) {
    const made = await taken(send("POST", "/devices", bodyOf(values)));
    $("add-device").close();
    const one = { ...made, device: made.id, latest: null, ahead: null, spark: [], heardAt: -Infinity, connected: false };
    one.key = keyOf(one);
    this.onAdded(one);
    await this.details(one, made);
    await this.#do(() => this.connect.issue(made.id));
    $("copy-snippet").focus();
  }

  // Only what somebody has changed: a place that was not written here may read back as another one.
  async #change(values) {
    const given = Object.entries({ ...bodyOf(values), name: values.name.trim() });
    const body = Object.fromEntries(given.filter(([field]) => values[field] !== this.shown[field]));
    if (!Object.keys(body).length) return this.#told("Nothing was changed.");
    const changed = await taken(send("PATCH", pathOf(this.one.device), body));
    this.#fill(changed);
    this.one.name = changed.name;
    $("device-title").textContent = changed.name;
    this.#told("Saved. Tokens that it has say what was registered when they were issued.");
    this.onRenamed(this.one.device, changed.name);
  }

  async #revoke() {
    const sure = await this.#sure(
      `Revoke the tokens of ${label(this.one)}?`,
      "It is disconnected within five seconds, and sends again once it has a new token.",
      "Revoke its tokens",
    );
    if (!sure) return;
    await this.#do(async () => {
      await send("DELETE", `${pathOf(this.one.device)}/tokens`);
      this.connect.clear();
      this.#told("Its tokens are revoked.");
      this.onChanged();
    });
  }

  async #remove() {
    const sure = await this.#sure(
      `Remove ${label(this.one)}?`,
      "Its tokens end, and it sends no more. Its readings stay, and go by its id from then on.",
      "Remove the device",
    );
    if (!sure) return;
    await this.#do(async () => {
      await send("DELETE", pathOf(this.one.device));
      $("device").close();
      this.onRenamed(this.one.device, null);
    });
  }

  #sure(question, consequence, yes) {
    const dialog = $("confirm");
    $("confirm-title").textContent = question;
    $("confirm-text").textContent = consequence;
    $("confirm-yes").textContent = yes;
    dialog.returnValue = "";
    dialog.showModal();
    $("confirm-yes").onclick = () => dialog.close("yes");
    return new Promise((done) => {
      dialog.onclose = () => done(dialog.returnValue === "yes");
    });
  }

  // What goes wrong is told in the dialog.
  async #do(call) {
    this.#told("");
    try {
      await call();
    } catch (error) {
      this.#told(error instanceof Refused ? error.message : "The server cannot be reached; try again.", true);
    }
  }

  #told(text, bad = false) {
    $("device-message").textContent = text;
    $("device-message").className = bad ? "message bad" : "message";
  }
}

// A name that is taken is told beside the name.
async function taken(asked) {
  try {
    return await asked;
  } catch (error) {
    if (error.code === "taken") error.field = "name";
    throw error;
  }
}
