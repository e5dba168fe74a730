// Whether rules can notify by e-mail: only where the server sends any, to the account's own address, once that is
// confirmed with a code that is mailed to it.

import { getJson, send } from "./session.js";
import { attempt, say, set } from "./messages.js";

const $ = (id) => document.getElementById(id);

export class AlarmEmail {
  constructor() {
    $("email-send").addEventListener("click", () => this.#attempt(() => this.#sendCode()));
    $("email-confirm").addEventListener("click", () => this.#attempt(() => this.#confirm()));
    $("email-code").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.#attempt(() => this.#confirm());
    });
  }

  // Ask the server; offer it as far as it can.
  async load() {
    this.#say("");
    this.#show(null);
    try {
      this.#show(await getJson("/alarms/email"));
    } catch {
      // Not offered here, or not now.
    }
  }

  #show(found) {
    const offered = Boolean(found?.available);
    const confirmed = offered && found.confirmed;
    // A rule that has e-mail can do without, whatever has become of the address.
    const has = $("rule-email").checked;
    $("rule-email-part").hidden = !offered && !has;
    $("rule-email").disabled = !confirmed && !has;
    $("email-unconfirmed").hidden = !offered || confirmed;
    set($("rule-email-label"), offered ? `E-mail to ${found.email}` : "E-mail");
    if (!offered) return;
    $("email-code-part").hidden = !found.sentAt;
    set($("email-send"), found.sentAt ? "Send another code" : "Send a code");
  }

  async #sendCode() {
    await send("POST", "/alarms/email/confirmation");
    set($("email-send"), "Send another code");
    $("email-code-part").hidden = false;
    $("email-code").value = "";
    $("email-code").focus();
    this.#say("A code is on its way to your address.");
  }

  async #confirm() {
    this.#show(await send("POST", "/alarms/email/confirm", { code: $("email-code").value.trim() }));
    $("rule-email").checked = true;
    $("rule-email").dispatchEvent(new Event("input", { bubbles: true }));
    $("rule-email").focus();
    this.#say("Your address is confirmed.");
  }

  async #attempt(call) {
    this.#say("");
    await attempt($("email-message"), call);
  }

  #say(text) {
    say($("email-message"), text);
  }
}
