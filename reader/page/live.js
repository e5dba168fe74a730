// The live feed: Server-Sent Events over fetch, because EventSource cannot carry a token in a header.

import { get, loggedIn } from "./session.js";

const SILENT_AFTER_MS = 35_000;
const PAUSE_MS = [500, 15_000];

export class LiveFeed {
  constructor({ onReading, onState }) {
    this.onReading = onReading;
    this.onState = onState;
    this.lastId = "";
    this.stopped = false;
  }

  async run() {
    let pause = PAUSE_MS[0];
    while (!this.stopped && loggedIn()) {
      this.onState("connecting");
      this.abort = new AbortController();
      try {
        await this.#follow();
        pause = PAUSE_MS[0];
      } catch (error) {
        if (this.stopped) return;
        if (error.status === 401) return;
      }
      this.onState("waiting");
      await new Promise((done) => setTimeout(done, pause * (0.5 + Math.random() / 2)));
      pause = Math.min(pause * 2, PAUSE_MS[1]);
    }
  }

  stop() {
    this.stopped = true;
    this.abort?.abort();
  }

  async #follow() {
    const headers = { Accept: "text/event-stream" };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    const response = await get("/live", {}, { headers, signal: this.abort.signal, cache: "no-store" });
    this.onState("live");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let timer;
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.abort.abort(), SILENT_AFTER_MS);
    };
    try {
      for (;;) {
        watch();
        const { done, value } = await reader.read();
        if (done) return;
        text += value;
        const events = text.split("\n\n");
        text = events.pop();
        for (const event of events) this.#take(event);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #take(event) {
    let name = "message";
    let data = "";
    for (const line of event.split("\n")) {
      const at = line.indexOf(":");
      if (at <= 0) continue; // a comment: the heartbeat
      const field = line.slice(0, at);
      const value = line.slice(at + 1).replace(/^ /, "");
      if (field === "event") name = value;
      else if (field === "data") data += value;
      else if (field === "id") this.lastId = value;
    }
    if (name === "reading") this.onReading(JSON.parse(data));
  }
}
