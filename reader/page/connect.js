// A device's token, shown once, with code to paste that uses it, and whether a reading has arrived.

import { bindCopyButton } from "./clipboard.js";
import * as format from "./format.js";
import { send } from "./session.js";
import { SNIPPETS } from "./snippets.js";

const $ = (id) => document.getElementById(id);

export class Connect {
  constructor() {
    this.language = "curl";
    this.clear();
    for (const button of document.querySelectorAll("[data-language]")) {
      button.addEventListener("click", () => this.#show(button.dataset.language));
    }
    bindCopyButton($("copy-token"), () => this.token);
    bindCopyButton($("copy-snippet"), () => $("snippet").textContent);
  }

  // Get a new token for a device and show it.
  async issue(device) {
    const { token, expiresIn } = await send("POST", `/devices/${encodeURIComponent(device)}/token`);
    this.token = token;
    this.device = device;
    $("token").textContent = token;
    const until = new Date(Date.now() + expiresIn * 1000);
    $("token-until").textContent = `Valid until ${until.toLocaleDateString(undefined, { dateStyle: "long" })}.`;
    $("connect").hidden = false;
    $("arrived").textContent = "Waiting for its first reading…";
    this.#show(this.language);
  }

  receive(reading) {
    if (reading.device !== this.device) return;
    const value = format.value(reading.value, reading.unit);
    $("arrived").textContent = `Received: ${value} (${reading.sensorType}), ${format.time(Date.parse(reading.ts))}.`;
  }

  clear() {
    this.token = this.device = "";
    $("token").textContent = $("snippet").textContent = $("arrived").textContent = "";
    $("connect").hidden = true;
  }

  #show(language) {
    this.language = language;
    $("snippet").textContent = SNIPPETS[language](location.origin, this.token);
    for (const button of document.querySelectorAll("[data-language]")) {
      button.setAttribute("aria-pressed", String(button.dataset.language === language));
    }
  }
}
