// The message line above the chart. A notice stays until the next action, an error until it is resolved; a hint is
// shown while there is neither.

import { failureText } from "./http.js";

export class Messages {
  constructor(element) {
    this.element = element;
    this.notice = { text: "", bad: false };
    this.errorText = "";
    this.hintText = "";
  }

  notify(text, bad = false) {
    this.notice = { text, bad };
    this.#show();
  }

  error(text) {
    this.errorText = text;
    this.#show();
  }

  hint(text) {
    this.hintText = text;
    this.#show();
  }

  #show() {
    const bad = this.errorText || (this.notice.text && this.notice.bad);
    say(this.element, this.errorText || this.notice.text || this.hintText, bad);
  }
}

export function say(element, text, bad = false) {
  set(element, text);
  element.className = bad ? "message bad" : "message";
}

// What fails is shown in `element`.
export async function attempt(element, call) {
  try {
    await call();
  } catch (error) {
    say(element, failureText(error), true);
  }
}

// Only when changed, so that screen readers do not repeat it.
export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
