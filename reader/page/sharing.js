// The dialog that shares the selected series by a link with an API key, and lists and ends the user's API keys.

import { bindCopyButton } from "./clipboard.js";
import { now } from "./clock.js";
import { confirm } from "./confirm.js";
import { clear, onSubmit } from "./forms.js";
import * as fragment from "./fragment.js";
import { failureText } from "./http.js";
import { getJson, send } from "./session.js";

const DAY_MS = 86_400_000;
const MOST_DAYS = 366;
const SCOPES = {
  "readings:read": "reads",
  "readings:write": "sends",
  "devices:manage": "manages devices",
  "alarms:manage": "manages alarms",
};

const $ = (id) => document.getElementById(id);
const counted = (devices) => `${devices.length} device${devices.length === 1 ? "" : "s"}`;

// A device that has sent readings may not be registered, or no longer be.
function nameDevices(error, devices) {
  for (const each of error.errors ?? []) {
    const number = /^devices\[(\d+)\]$/.exec(each.field)?.[1];
    if (number) each.message = `${devices[number]} is not registered and cannot be shared.`;
  }
  throw error;
}

export class Sharing {
  constructor() {
    $("share").addEventListener("click", () => this.#open());
    $("sharing").addEventListener("close", () => this.#closed());
    onSubmit($("share-form"), (values) => this.#make(values));
    bindCopyButton($("copy-link"), () => $("share-link").textContent);
  }

  #open() {
    const devices = [...new Set(fragment.read().series.map(([device]) => device))];
    this.shared = { devices, view: location.hash.slice(1) };
    $("share-what").textContent = devices.length ? `The link shows ${counted(devices)}.` : "The link shows all devices.";
    $("share-form").reset();
    clear($("share-form"));
    this.#hideLink();
    $("sharing").showModal();
    this.#list();
  }

  #closed() {
    this.shared = null;
    this.#hideLink();
  }

  #hideLink() {
    $("share-link").textContent = "";
    $("share-done").hidden = true;
  }

  async #make({ name, days }) {
    const wanted = Number(days);
    if (!Number.isInteger(wanted) || wanted < 1 || wanted > MOST_DAYS) {
      throw { errors: [{ field: "days", message: `A whole number from 1 to ${MOST_DAYS}.` }] };
    }
    const { shared } = this;
    const { devices, view } = shared;
    const body = {
      name: name.trim(),
      scope: ["readings:read"],
      devices: devices.length ? devices : undefined,
      // Without it, the server takes the longest.
      expiresAt: wanted < MOST_DAYS ? new Date(now() + wanted * DAY_MS).toISOString() : undefined,
    };
    const made = await send("POST", "/keys", body).catch((error) => nameDevices(error, devices));
    if (shared !== this.shared) return; // closed meanwhile: the key is in the list, and can be ended there
    $("share-link").textContent = `${location.origin}${location.pathname}#key=${made.key}${view && `&${view}`}`;
    $("share-done").hidden = false;
    $("copy-link").focus();
    await this.#list();
  }

  async #list() {
    try {
      const { items } = await getJson("/keys");
      $("keys").replaceChildren(...items.reverse().map((key) => this.#row(key)));
      $("keys-message").textContent = items.length ? "" : "None yet.";
    } catch (error) {
      this.#failed(error);
    }
  }

  #row(key) {
    const row = document.createElement("li");
    const text = document.createElement("span");
    const until = new Date(key.expiresAt).toLocaleDateString(undefined, { dateStyle: "long" });
    const does = key.scope.map((one) => SCOPES[one] ?? one).join(", ");
    const ends = Date.parse(key.expiresAt) > now() ? `until ${until}` : `expired ${until}`;
    text.textContent = `${key.name}: ${does}, ${key.devices ? counted(key.devices) : "all devices"}, ${ends}`;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small-button";
    button.textContent = "End…";
    button.setAttribute("aria-label", `End ${key.name}`);
    button.addEventListener("click", () => this.#end(key));
    row.append(text, " ", button);
    return row;
  }

  async #end({ id, name }) {
    const consequence = "Links and programs with it stop within five seconds, and so do device tokens that it issued.";
    if (!(await confirm(`End ${name}?`, consequence, "End it"))) return;
    try {
      await send("DELETE", `/keys/${id}`);
      await this.#list();
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error) {
    $("keys-message").textContent = failureText(error);
  }
}
