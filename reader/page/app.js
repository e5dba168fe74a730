// The page: who is logged in, what there is, and what was chosen of it.

import * as address from "./address.js";
import { Charting } from "./charting.js";
import { DeviceList, keyOf } from "./devices.js";
import * as format from "./format.js";
import { LiveFeed } from "./live.js";
import * as session from "./session.js";

const LIST_EVERY_MS = 500;
const SERIES_EVERY_MS = 5000;
const PIPELINE_EVERY_MS = 2000;
const DEVICES_EVERY_MS = 60_000;

const $ = (id) => document.getElementById(id);

class Page {
  constructor() {
    this.list = new DeviceList({ onChosen: () => this.choose() });
    this.charting = new Charting({
      series: (key) => this.list.series.get(key),
      label: (series) => this.list.label(series),
    });
    this.timers = [];
    this.#listen();
  }

  start() {
    $("login").hidden = true;
    $("app").hidden = false;
    $("user").textContent = session.email();
    this.feed = new LiveFeed({ onReading: (reading) => this.heard(reading), onState: (state) => this.feedState(state) });
    this.feed.run();
    this.#every(SERIES_EVERY_MS, () => this.refreshSeries());
    this.#every(DEVICES_EVERY_MS, () => this.refreshNames());
    this.#every(PIPELINE_EVERY_MS, () => this.refreshPipeline());
    this.#every(LIST_EVERY_MS, () => this.list.refreshFresh());
    this.charting.start();
  }

  stop() {
    this.feed?.stop();
    for (const timer of this.timers) clearInterval(timer);
    location.reload(); // nothing of the last user stays in memory
  }

  #every(ms, call) {
    const run = async () => {
      try {
        await call();
        if (this.troubled === call) this.charting.message("");
      } catch (error) {
        this.troubled = call;
        this.charting.failed(error);
      }
    };
    run();
    this.timers.push(setInterval(() => document.hidden || run(), ms));
  }

  #listen() {
    $("logout").addEventListener("click", async () => {
      await session.logOut();
      this.stop();
    });
    $("theme").addEventListener("click", () => {
      const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      document.documentElement.dataset.theme = theme;
      localStorage.setItem("tidegate.theme", theme);
      this.charting.draw();
    });
  }

  async refreshSeries() {
    const first = this.list.series.size === 0;
    this.list.update(await session.getAll("/series"));
    $("online").textContent = format.number(this.list.online);
    if (!first || !this.list.series.size) return;
    const latest = await session.getJson("/readings/latest", { limit: 200 });
    for (const reading of latest.items) this.list.known(reading);
    this.list.draw();
    if (this.list.chosen.size) return;
    const kept = address.read().series.map(([device, sensorType]) => keyOf({ device, sensorType }));
    if (kept.length) this.list.choose(kept);
    else this.#chooseSome();
  }

  // What a newcomer sees at once: one series of each of the first sensorTypes.
  #chooseSome() {
    const byType = new Map();
    for (const one of this.list.series.values()) {
      if (!byType.has(one.sensorType)) byType.set(one.sensorType, keyOf(one));
    }
    this.list.choose([...byType.values()].slice(0, 3));
  }

  async refreshNames() {
    this.list.name(await session.getAll("/devices", { limit: 1000 }));
  }

  async refreshPipeline() {
    const { readingsPerSecond, lagSeconds } = await session.getJson("/pipeline");
    $("rate").textContent = format.number(readingsPerSecond);
    $("lag").textContent = lagSeconds === null ? "–" : lagSeconds < 1 ? `${Math.round(lagSeconds * 1000)} ms` : `${lagSeconds.toFixed(1)} s`;
  }

  heard(reading) {
    this.list.heard(reading);
    this.charting.heard(reading);
  }

  choose() {
    const shown = this.charting.choose([...this.list.chosen]);
    if (shown.length < this.list.chosen.size) this.list.choose(shown);
  }

  feedState(state) {
    $("feed-text").textContent = { live: "live", connecting: "connecting", waiting: "coming back" }[state];
    $("feed").querySelector(".dot").className = state === "live" ? "dot on" : "dot wait";
  }
}

function askToLogIn() {
  $("app").hidden = true;
  $("login").hidden = false;
  $("login-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.target.querySelector("button");
    button.disabled = true;
    $("login-error").textContent = "";
    try {
      await session.logIn($("email").value.trim(), $("password").value);
      $("password").value = "";
      page.start();
    } catch (error) {
      const wrong = error.status === 401 || error.status === 422;
      $("login-error").textContent = wrong ? "This e-mail and password do not fit." : error.message;
    } finally {
      button.disabled = false;
    }
  });
}

const page = new Page();
session.whenEnded(() => page.stop());
if (session.loggedIn()) page.start();
else askToLogIn();
