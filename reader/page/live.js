// The live feed while the page is visible: shared by all tabs, or this tab's own where the browser has no shared
// workers.

import { Feed } from "./feed.js";
import { holder, loggedIn, token } from "./session.js";

const WORKER = "/dashboard/live-worker.js";
// Increment for incompatible changes of the messages: an old worker lives as long as any tab.
const PROTOCOL = 1;
// A worker silent for this long does not work in this browser.
const HELLO_TIMEOUT_MS = 5000;

export class LiveFeed {
  constructor({ onReading, onAlarms, onState }) {
    this.onReadings = (readings) => readings.forEach(onReading);
    this.onAlarms = onAlarms;
    this.onState = onState;
    this.keys = null;
    this.stopped = false;
    this.onVisibilityChange = ({ type }) => {
      if (type === "pageshow") this.pageHidden = false;
      this.#update();
    };
    this.onPageHide = () => {
      this.pageHidden = true; // until it is restored from the back/forward cache
      this.port?.postMessage({ bye: true });
    };
  }

  run() {
    document.addEventListener("visibilitychange", this.onVisibilityChange);
    addEventListener("pageshow", this.onVisibilityChange);
    addEventListener("pagehide", this.onPageHide);
    if (typeof SharedWorker === "undefined") this.#useOwnFeed();
    else this.#useWorker();
  }

  // Follow only these series ("device\nsensorType") or devices; null for all.
  setKeys(keys) {
    this.keys = keys;
    this.#update();
  }

  stop() {
    this.stopped = true;
    document.removeEventListener("visibilitychange", this.onVisibilityChange);
    removeEventListener("pageshow", this.onVisibilityChange);
    removeEventListener("pagehide", this.onPageHide);
    this.port?.postMessage({ bye: true });
    this.port?.close();
    this.own?.stop();
  }

  #useWorker() {
    const worker = new SharedWorker(WORKER, { type: "module", name: `tidegate.live.${PROTOCOL}.${holder()}` });
    const helloTimeout = setTimeout(() => this.#useOwnFeed(), HELLO_TIMEOUT_MS);
    worker.onerror = () => this.#useOwnFeed();
    this.port = worker.port;
    this.port.onmessage = ({ data }) => {
      clearTimeout(helloTimeout);
      this.#onMessage(data);
    };
    this.#update();
  }

  async #onMessage({ state, readings, alarms, ask, refused, ping }) {
    if (this.stopped || !this.port) return;
    if (readings) this.onReadings(readings);
    if (alarms) this.onAlarms(alarms);
    if (state) this.onState(state);
    if (ping) this.port.postMessage({ pong: true });
    if (ask !== undefined) {
      const found = await token(refused).catch(() => (loggedIn() ? undefined : null));
      this.port?.postMessage({ answer: ask, token: found });
    }
  }

  #useOwnFeed() {
    if (this.stopped || this.withoutWorker) return;
    this.port?.close();
    this.port = null;
    this.withoutWorker = true;
    this.#update();
  }

  #update() {
    if (this.stopped || this.pageHidden) return;
    const wants = !document.hidden;
    if (this.port) this.port.postMessage({ wants, keys: this.keys });
    else if (this.withoutWorker && wants) this.#open();
    else if (this.withoutWorker) this.#close();
  }

  #open() {
    if (this.own) return;
    const { onReadings, onAlarms, onState } = this;
    const opened = (this.own = new Feed({ token, onReadings, onAlarms, onState }));
    opened.run().then(() => {
      if (this.own === opened) this.own = null;
    });
  }

  #close() {
    this.own?.stop();
    this.own = null;
  }
}
