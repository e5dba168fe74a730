// The message line above the chart. A notice stays until the next action, an error until it is resolved; a hint is
// shown while there is neither.

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
    set(this.element, this.errorText || this.notice.text || this.hintText);
    const bad = this.errorText || (this.notice.text && this.notice.bad);
    this.element.className = bad ? "message bad" : "message";
  }
}

// Only when changed, so that screen readers do not repeat it.
export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
