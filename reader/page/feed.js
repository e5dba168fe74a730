// The live feed: Server-Sent Events over fetch, because EventSource cannot carry a token in a header.

import { parse } from "./exact.js";
import { bearer, Refused, request } from "./http.js";

const SILENT_AFTER_MS = 35_000;
const PAUSE_MS = [500, 15_000];

export class Feed {
  // token(refused): a token that serves; throws Refused 401 where nobody is logged in
  // onReadings([reading…]); onState("connecting" | "live" | "waiting")
  constructor({ token, onReadings, onState }) {
    Object.assign(this, { token, onReadings, onState, lastId: "", stopped: false });
  }

  // Follow until `stop`, or until nobody is logged in.
  async run() {
    let pause = PAUSE_MS[0];
    let refused;
    while (!this.stopped) {
      this.onState("connecting");
      let least = 0;
      try {
        await this.#follow(await this.token(refused));
        [pause, refused] = [PAUSE_MS[0], undefined];
      } catch (error) {
        if (this.stopped || (error.status === 401 && refused === this.used)) return;
        refused = error.status === 401 ? this.used : undefined;
        least = error.retryAfterMs ?? 0;
      }
      if (this.stopped) return;
      this.onState("waiting");
      await new Promise((done) => setTimeout(done, Math.max(least, pause * (0.5 + Math.random() / 2))));
      pause = Math.min(pause * 2, PAUSE_MS[1]);
    }
  }

  stop() {
    this.stopped = true;
    this.abort?.abort();
  }

  async #follow(token) {
    if (this.stopped) return;
    this.used = token;
    this.abort = new AbortController();
    const headers = { Accept: "text/event-stream", ...bearer(token) };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    let timer;
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.abort.abort(), SILENT_AFTER_MS);
    };
    watch();
    try {
      const response = await request("/live", { headers, signal: this.abort.signal, cache: "no-store" });
      this.onState("live");
      await this.#read(response.body.pipeThrough(new TextDecoderStream()).getReader(), watch);
    } finally {
      clearTimeout(timer);
    }
  }

  async #read(reader, watch) {
    let text = "";
    for (;;) {
      watch();
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      const readings = events.map((event) => this.#readingOf(event)).filter(Boolean);
      this.lastId = idAhead(text) ?? this.lastId;
      if (readings.length && !this.stopped) this.onReadings(readings);
    }
  }

  #readingOf(event) {
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
    return name === "reading" ? parse(data) : null;
  }
}

export { Refused };

// The id that stands before the next event, by itself: a feed that is cut before its first reading goes on from there.
// An event's own id counts only with the whole event.
function idAhead(text) {
  const [before] = text.split("event:", 1);
  return [...before.matchAll(/^id: ?(.*)\n/gm)].at(-1)?.[1];
}
