// The line above the chart. What somebody is told stays until they do something else; trouble, until it is over; and a
// hint stands there while there is nothing else to say.

export class Messages {
  constructor(element) {
    this.element = element;
    this.notice = { text: "", bad: false };
    this.problem = "";
    this.idle = "";
  }

  tell(text, bad = false) {
    this.notice = { text, bad };
    this.#say();
  }

  trouble(text) {
    this.problem = text;
    this.#say();
  }

  hint(text) {
    this.idle = text;
    this.#say();
  }

  #say() {
    set(this.element, this.problem || this.notice.text || this.idle);
    const bad = this.problem || (this.notice.text && this.notice.bad);
    this.element.className = bad ? "message bad" : "message";
  }
}

// Only what is new: what is read out is not read out again.
export function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
