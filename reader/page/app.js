// The page: its parts, and what they tell each other.

import * as address from "./address.js";
import { Charting, MOST_CHOSEN } from "./charting.js";
import { DeviceList, keyOf } from "./devices.js";
import * as format from "./format.js";
import { label } from "./known.js";
import { logOut, settled } from "./leaving.js";
import { LiveFeed } from "./live.js";
import { Login } from "./login.js";
import { Manage } from "./manage.js";
import { fetchPlotly } from "./plotly.js";
import { repeat } from "./polling.js";
import * as session from "./session.js";

const PIPELINE_EVERY_MS = 2000;
const FEED_STATES = { live: "live", connecting: "connecting", waiting: "coming back" };

const $ = (id) => document.getElementById(id);

class Page {
  constructor() {
    this.list = new DeviceList({
      onChosen: () => this.choose(),
      onFirst: (items) => this.chooseFirst(items),
      onWanted: (keys) => this.feed?.want(keys),
      onLabels: () => this.charting.draw(),
      onDetails: (one) => this.manage.details(one),
      onSettled: () => this.charting.begin(),
    });
    this.manage = new Manage({
      onAdded: (one) => this.added(one),
      onRenamed: (device, name) => this.list.renamed(device, name),
      onChanged: () => this.list.changed(),
    });
    this.charting = new Charting({ series: (key) => this.list.series(key), label });
    this.login = new Login({ onIn: () => this.entered() });
    $("logout").addEventListener("click", () => this.leave());
    $("theme").addEventListener("click", () => this.switchTheme());
  }

  async entered() {
    await settled();
    if (this.feed) location.reload(); // nothing of the last user stays in memory
    else this.start();
  }

  start() {
    $("login").hidden = true;
    $("app").hidden = false;
    $("user").textContent = $("user").title = session.email();
    this.feed = new LiveFeed({ onReading: (reading) => this.heard(reading), onState: (state) => this.tellFeed(state) });
    const keysIn = ({ series }) => series.map(([device, sensorType]) => keyOf({ device, sensorType }));
    const kept = keysIn(address.read());
    fetchPlotly();
    this.list.start();
    if (kept.length) this.list.choose(kept);
    address.whenMoved((moved) => this.list.choose(keysIn(moved)));
    this.feed.run();
    this.endPolling = repeat(PIPELINE_EVERY_MS, () => this.tellPipeline());
    this.charting.start();
  }

  // Show what the session's end leaves: nothing of it. The address stays unless somebody has logged out on purpose.
  stop(notice, kept = location.hash) {
    const whose = $("user").textContent;
    this.feed.stop();
    this.endPolling();
    this.manage.close();
    this.list.stop();
    this.charting.choose([]);
    history.replaceState(history.state, "", `${location.pathname}${location.search}${kept}`);
    $("user").textContent = $("user").title = "";
    this.login.show(notice, notice === "expired" ? whose : "");
  }

  leave() {
    this.stop("ending", "");
    logOut((how) => this.login.tell(how));
  }

  switchTheme() {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("tidegate.theme", theme);
    this.charting.draw();
  }

  // What a newcomer sees at once: one series of each of the first sensorTypes.
  chooseFirst(items) {
    if (this.list.chosen.size) return;
    const byType = new Map();
    for (const one of items) if (one.latest && !byType.has(one.sensorType)) byType.set(one.sensorType, keyOf(one));
    this.list.choose([...byType.values()].slice(0, 3));
  }

  choose() {
    const shown = this.charting.choose([...this.list.chosen]);
    if (shown.length < this.list.chosen.size) this.list.choose(shown);
  }

  // A new device is shown as soon as it has something to show.
  added({ device }) {
    this.awaited = device;
    this.list.expect(device);
  }

  chooseAwaited(reading) {
    this.awaited = null;
    const { chosen } = this.list;
    if (chosen.size < MOST_CHOSEN) this.list.choose([...chosen, keyOf(reading)]);
  }

  heard(reading) {
    if (reading.device === this.awaited) this.chooseAwaited(reading);
    this.list.heard(reading);
    this.charting.heard(reading);
    this.manage.heard(reading);
  }

  async tellPipeline() {
    let told = { readingsPerSecond: null, lagSeconds: null };
    try {
      told = await session.getJson("/pipeline");
    } catch {
      // The list says that the server cannot be reached.
    }
    const { readingsPerSecond: rate, lagSeconds: lag } = told;
    $("rate").textContent = rate === null ? "–" : format.rough(rate);
    $("lag").textContent = lag === null ? "–" : lag < 1 ? `${Math.round(lag * 1000)} ms` : `${lag.toFixed(1)} s`;
  }

  tellFeed(state) {
    $("feed-text").textContent = FEED_STATES[state];
    $("feed").querySelector(".dot").className = state === "live" ? "dot on" : "dot wait";
  }
}

const page = new Page();
session.whenEnded((how) => page.stop(how));
if (session.loggedIn()) page.start();
else page.login.show();
