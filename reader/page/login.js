// The page of who is not logged in: log in, sign up, and what has happened to the session before.

import { onSubmit } from "./fields.js";
import * as session from "./session.js";

const NOTICES = {
  expired: "Your session has expired or was ended. Log in, and you are back where you were.",
  left: "You have logged out in another tab.",
  ending: "You are logged out here. The server is told…",
  ended: "You are logged out.",
  waiting:
    "You are logged out here, but the server cannot be reached. The session ends as soon as the server answers: leave this page open for it.",
};

const $ = (id) => document.getElementById(id);

export class Login {
  // onIn(): somebody has logged in
  constructor({ onIn }) {
    this.onIn = onIn;
    onSubmit($("login-form"), (values) => this.#logIn(values));
    onSubmit($("signup-form"), (values) => this.#signUp(values));
    $("to-signup").addEventListener("click", () => this.#turn("signup"));
    $("to-login").addEventListener("click", () => this.#turn("login"));
  }

  // notice: a key of NOTICES, or none; address: whose session it was
  show(notice, address = "") {
    $("app").hidden = true;
    $("login").hidden = false;
    this.#turn("login");
    this.tell(notice);
    if (address) $("email").value = address;
    $(address ? "password" : "email").focus();
  }

  tell(notice) {
    $("login-notice").textContent = NOTICES[notice] ?? "";
  }

  #turn(to) {
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
      error.errors = [{ message: "This e-mail and password do not fit." }];
      throw error;
    }
    this.#in();
  }

  async #signUp({ name, email, password }) {
    try {
      await session.signUp(name.trim(), email.trim(), password);
    } catch (error) {
      if (error.code === "taken") error.field = "email";
      throw error;
    }
    await session.logIn(email.trim(), password);
    this.#in();
  }

  #in() {
    for (const field of document.querySelectorAll("#login [type=password]")) field.value = "";
    this.tell("");
    this.onIn();
  }
}
