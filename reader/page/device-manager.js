// The dialogs that add, connect, rename and remove devices and revoke their tokens.

import { Connect } from "./connect.js";
import { bindCopyButton } from "./clipboard.js";
import { sendCommand } from "./commands.js";
import { confirm } from "./confirm.js";
import { clear, onSubmit } from "./forms.js";
import * as format from "./format.js";
import { failureText } from "./http.js";
import { keyOf, label } from "./known-series.js";
import { aheadText, stateText } from "./rows.js";
import { getJson, readOnly, send } from "./session.js";

const POSITION = /^(-?\d+(?:\.\d+)?)\s*[,;]\s*(-?\d+(?:\.\d+)?)(?:\s*[,;]\s*(-?\d+(?:\.\d+)?))?$/;

const $ = (id) => document.getElementById(id);
const pathOf = (device) => `/devices/${encodeURIComponent(device)}`;

// Two or three numbers are a position in degrees and metres; anything else is a place name.
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

export class DeviceManager {
  // onAdded(series), onRenamed(device, name), onChanged(): changes for the list
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
    onSubmit($("command-form"), (values) => this.#command(values));
    $("new-token").addEventListener("click", () => this.#attempt(() => this.connect.issue(this.one.device)));
    $("revoke-tokens").addEventListener("click", () => this.#revoke());
    $("remove-device").addEventListener("click", () => this.#remove());
    bindCopyButton($("copy-id"), () => this.one.device);
  }

  receive(reading) {
    this.connect.receive(reading);
    if ($("device").open && this.one?.device === reading.device) this.#showState();
  }

  close() {
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  }

  // Show a series' device; `registered` is its registration, fetched if omitted.
  async details(one, registered) {
    this.one = one;
    $("device-title").textContent = label(one);
    $("device-id").textContent = one.device;
    $("registered").hidden = $("not-registered").hidden = true;
    $("change-device").open = $("command-device").open = false;
    $("command-result").textContent = "";
    this.#notify("");
    this.#showState();
    if (!$("device").open) $("device").showModal();
    await this.#attempt(async () => {
      const found = registered ?? (await this.#fetchRegistered(one.device));
      if (this.one !== one) return;
      $("registered").hidden = !found || readOnly();
      $("not-registered").hidden = Boolean(found);
      if (found) this.#fill(found);
    });
  }

  async #fetchRegistered(device) {
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

  #showState() {
    $("device-state").textContent = stateText(this.one);
    const { latest, ahead, sensorType } = this.one;
    const newest = latest ? `${format.value(latest.value, latest.unit)}, ${format.time(Date.parse(latest.ts))}` : "none yet";
    $("device-latest").textContent = ahead ? `${newest}. Also ${aheadText(ahead)}: its clock may be wrong.` : newest;
    $("device-sensor").textContent = sensorType;
  }

  #open(dialog, form) {
    form.reset();
    clear(form);
    dialog.showModal();
  }

  async #add(values) {
    const created = await nameErrorIfTaken(send("POST", "/devices", bodyOf(values)));
    $("add-device").close();
    const one = { ...created, device: created.id, latest: null, ahead: null, spark: [], lastReceivedAt: -Infinity, connected: false };
    one.key = keyOf(one);
    this.onAdded(one);
    await this.details(one, created);
    await this.#attempt(() => this.connect.issue(created.id));
    $("copy-snippet").focus();
  }

  // Sends only changed fields: a location not entered here may not survive being shown and parsed.
  async #change(values) {
    const given = Object.entries({ ...bodyOf(values), name: values.name.trim() });
    const body = Object.fromEntries(given.filter(([field]) => values[field] !== this.shown[field]));
    if (!Object.keys(body).length) return this.#notify("Nothing was changed.");
    const changed = await nameErrorIfTaken(send("PATCH", pathOf(this.one.device), body));
    this.#fill(changed);
    this.one.name = changed.name;
    $("device-title").textContent = changed.name;
    this.#notify("Saved. Existing tokens keep what was registered when they were issued.");
    this.onRenamed(this.one.device, changed.name);
  }

  async #command(values) {
    const { one } = this;
    $("command-result").textContent = "";
    const text = await sendCommand(pathOf(one.device), values);
    if (this.one === one) $("command-result").textContent = text;
  }

  async #revoke() {
    const confirmed = await confirm(
      `Revoke the tokens of ${label(this.one)}?`,
      "The device is disconnected within five seconds, and can send again with a new token.",
      "Revoke its tokens",
    );
    if (!confirmed) return;
    await this.#attempt(async () => {
      await send("DELETE", `${pathOf(this.one.device)}/tokens`);
      this.connect.clear();
      this.#notify("Its tokens are revoked.");
      this.onChanged();
    });
  }

  async #remove() {
    const confirmed = await confirm(
      `Remove ${label(this.one)}?`,
      "Its tokens are revoked and it can no longer send. Its readings stay, listed under its id.",
      "Remove the device",
    );
    if (!confirmed) return;
    await this.#attempt(async () => {
      await send("DELETE", pathOf(this.one.device));
      $("device").close();
      this.onRenamed(this.one.device, null);
    });
  }

  // Errors are shown in the dialog.
  async #attempt(call) {
    this.#notify("");
    try {
      await call();
    } catch (error) {
      this.#notify(failureText(error), true);
    }
  }

  #notify(text, bad = false) {
    $("device-message").textContent = text;
    $("device-message").className = bad ? "message bad" : "message";
  }
}

// Report a name that is taken next to its field.
async function nameErrorIfTaken(call) {
  try {
    return await call;
  } catch (error) {
    if (error.code === "taken") error.field = "name";
    throw error;
  }
}
