// A device's token, shown once, and what a person pastes to use it; then whether a reading has come.

import { copies } from "./copying.js";
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
    copies($("copy-token"), () => this.token);
    copies($("copy-snippet"), () => $("snippet").textContent);
  }

  // Get a new token for a device and show it.
  async issue(device) {
    const { token, expiresIn } = await send("POST", `/devices/${encodeURIComponent(device)}/token`);
    this.token = token;
    this.device = device;
    $("token").textContent = token;
    const until = new Date(Date.now() + expiresIn * 1000);
    $("token-until").textContent = `It serves until ${until.toLocaleDateString(undefined, { dateStyle: "long" })}.`;
    $("connect").hidden = false;
    $("arrived").textContent = "Waiting for its first reading…";
    this.#show(this.language);
  }

  heard(reading) {
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
