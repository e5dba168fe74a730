// The live feed: Server-Sent Events over fetch, because EventSource cannot carry a token in a header.

import { parse } from "./exact-json.js";
import { bearer, ApiError, request } from "./http.js";

const HEARTBEAT_TIMEOUT_MS = 35_000;
const RETRY_MS = [500, 15_000];

export class Feed {
  // token(rejected): a valid token other than `rejected`; throws ApiError 401 if logged out
  // onReadings([reading…]); onAlarms([alarm…]); onState("connecting" | "live" | "waiting")
  constructor({ token, onReadings, onAlarms, onState }) {
    Object.assign(this, { token, onReadings, onAlarms, onState, lastId: "", stopped: false });
  }

  // Follow the feed until `stop` or log-out.
  async run() {
    let delay = RETRY_MS[0];
    let rejected;
    while (!this.stopped) {
      this.onState("connecting");
      let minDelay = 0;
      try {
        await this.#follow(await this.token(rejected));
        [delay, rejected] = [RETRY_MS[0], undefined];
      } catch (error) {
        if (this.stopped || (error.status === 401 && rejected === this.lastToken)) return;
        rejected = error.status === 401 ? this.lastToken : undefined;
        minDelay = error.retryAfterMs ?? 0;
      }
      if (this.stopped) return;
      this.onState("waiting");
      await new Promise((done) => setTimeout(done, Math.max(minDelay, delay * (0.5 + Math.random() / 2))));
      delay = Math.min(delay * 2, RETRY_MS[1]);
    }
  }

  stop() {
    this.stopped = true;
    this.abort?.abort();
  }

  async #follow(token) {
    if (this.stopped) return;
    this.lastToken = token;
    this.abort = new AbortController();
    const headers = { Accept: "text/event-stream", ...bearer(token) };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    let timer;
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.abort.abort(), HEARTBEAT_TIMEOUT_MS);
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
      const parsed = events.map((event) => this.#parseEvent(event));
      this.lastId = leadingId(text) ?? this.lastId;
      if (!this.stopped) this.#deliver(parsed);
    }
  }

  #deliver(events) {
    const [readings, alarms] = ["reading", "alarm"].map((kind) =>
      events.filter(({ name }) => name === kind).map(({ data }) => parse(data)),
    );
    if (readings.length) this.onReadings(readings);
    if (alarms.length) this.onAlarms(alarms);
  }

  #parseEvent(event) {
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
    return { name, data };
  }
}

export { ApiError };

// A standalone id line before the next event: a feed cut before its first reading resumes from it. An event's own id
// counts only once the event is complete.
function leadingId(text) {
  const [before] = text.split("event:", 1);
  return [...before.matchAll(/^id: ?(.*)\n/gm)].at(-1)?.[1];
}
