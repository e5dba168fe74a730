// The log-in and sign-up page, with a notice about the previous session.

import { onSubmit } from "./forms.js";
import * as session from "./session.js";

const NOTICES = {
  expired: "Your session has expired or was ended. Log in to continue where you left off.",
  left: "You have logged out in another tab.",
  viewEnded: "This view has expired or is no longer shared. Ask for a new link, or log in.",
  viewLeft: "You have left the shared view.",
  unusable: "This link has no API key that may show readings. Ask for a new one, or log in.",
  ending: "You are logged out here. Ending the session on the server…",
  ended: "You are logged out.",
  waiting:
    "You are logged out here, but the server cannot be reached. The session ends as soon as the server responds: keep this page open until then.",
};

const $ = (id) => document.getElementById(id);

export class Login {
  // onIn(): called after log-in
  constructor({ onIn }) {
    this.onIn = onIn;
    onSubmit($("login-form"), (values) => this.#logIn(values));
    onSubmit($("signup-form"), (values) => this.#signUp(values));
    $("to-signup").addEventListener("click", () => this.#showForm("signup"));
    $("to-login").addEventListener("click", () => this.#showForm("login"));
  }

  // notice: a key of NOTICES, or none; address: the e-mail of the previous session
  show(notice, address = "") {
    $("app").hidden = true;
    $("login").hidden = false;
    this.#showForm("login");
    this.showNotice(notice);
    if (address) $("email").value = address;
    $(address ? "password" : "email").focus();
  }

  showNotice(notice) {
    $("login-notice").textContent = NOTICES[notice] ?? "";
  }

  #showForm(to) {
    $("login-form").hidden = to !== "login";
    $("signup-form").hidden = to !== "signup";
    if (to === "signup") $("new-email").value ||= $("email").value;
    $(to === "signup" ? "new-name" : "email").focus();
  }

  async #logIn({ email, password }) {
    try {
      await session.logIn(email.trim(), password);
    } catch (error) {
      if (error.status !== 401 && error.status !== 422) throw error;
      error.errors = [{ message: "Wrong e-mail or password." }];
      throw error;
    }
    this.#enter();
  }

  async #signUp({ name, email, password }) {
    try {
      await session.signUp(name.trim(), email.trim(), password);
    } catch (error) {
      if (error.code === "taken") error.field = "email";
      throw error;
    }
    await session.logIn(email.trim(), password);
    this.#enter();
  }

  #enter() {
    for (const field of document.querySelectorAll("#login [type=password]")) field.value = "";
    this.showNotice("");
    this.onIn();
  }
}
