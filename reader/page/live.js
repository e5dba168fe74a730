// What is stored right now, as long as the page is seen: out of the one feed of all tabs, or where the browser has no
// shared workers, out of a feed of its own.

import { Feed } from "./feed.js";
import { loggedIn, owner, token } from "./session.js";

const WORKER = "/dashboard/live-worker.js";
// Another one, whenever tabs and worker would no longer understand each other: an old worker lives as long as a tab.
const PROTOCOL = 1;
// A worker that says nothing for so long does not run here.
const HELLO_MS = 5000;

export class LiveFeed {
  constructor({ onReading, onState }) {
    this.onReadings = (readings) => readings.forEach(onReading);
    this.onState = onState;
    this.keys = null;
    this.stopped = false;
    this.changed = ({ type }) => {
      if (type === "pageshow") this.gone = false;
      this.#follow();
    };
    this.leaves = () => {
      this.gone = true; // until it is shown again, out of the browser's memory
      this.port?.postMessage({ bye: true });
    };
  }

  run() {
    document.addEventListener("visibilitychange", this.changed);
    addEventListener("pageshow", this.changed);
    addEventListener("pagehide", this.leaves);
    if (typeof SharedWorker === "undefined") this.#alone();
    else this.#share();
  }

  // Only the readings of these series, "device\nsensorType", or devices; null for all.
  want(keys) {
    this.keys = keys;
    this.#follow();
  }

  stop() {
    this.stopped = true;
    document.removeEventListener("visibilitychange", this.changed);
    removeEventListener("pageshow", this.changed);
    removeEventListener("pagehide", this.leaves);
    this.port?.postMessage({ bye: true });
    this.port?.close();
    this.own?.stop();
  }

  #share() {
    const worker = new SharedWorker(WORKER, { type: "module", name: `tidegate.live.${PROTOCOL}.${owner()}` });
    const silent = setTimeout(() => this.#alone(), HELLO_MS);
    worker.onerror = () => this.#alone();
    this.port = worker.port;
    this.port.onmessage = ({ data }) => {
      clearTimeout(silent);
      this.#take(data);
    };
    this.#follow();
  }

  async #take({ state, readings, ask, refused, ping }) {
    if (this.stopped || !this.port) return;
    if (readings) this.onReadings(readings);
    if (state) this.onState(state);
    if (ping) this.port.postMessage({ pong: true });
    if (ask !== undefined) {
      const found = await token(refused).catch(() => (loggedIn() ? undefined : null));
      this.port?.postMessage({ answer: ask, token: found });
    }
  }

  #alone() {
    if (this.stopped || this.ownOnly) return;
    this.port?.close();
    this.port = null;
    this.ownOnly = true;
    this.#follow();
  }

  #follow() {
    if (this.stopped || this.gone) return;
    const wants = !document.hidden;
    if (this.port) this.port.postMessage({ wants, keys: this.keys });
    else if (this.ownOnly && wants) this.#open();
    else if (this.ownOnly) this.#close();
  }

  #open() {
    if (this.own) return;
    const mine = (this.own = new Feed({ token, onReadings: this.onReadings, onState: this.onState }));
    mine.run().then(() => {
      if (this.own === mine) this.own = null;
    });
  }

  #close() {
    this.own?.stop();
    this.own = null;
  }
}
