// The page: creates its parts and connects them.

import { AlarmSpans } from "./alarm-spans.js";
import * as fragment from "./fragment.js";
import { ChartCard, MOST_CHOSEN } from "./chart-card.js";
import { DeviceList, keyOf } from "./devices.js";
import { Firing } from "./firing.js";
import * as format from "./format.js";
import { label } from "./known-series.js";
import { logOut, logoutSettled } from "./logout.js";
import { LiveFeed } from "./live.js";
import { Login } from "./login.js";
import { DeviceManager } from "./device-manager.js";
import { fetchPlotly } from "./plotly.js";
import { repeat } from "./polling.js";
import { RuleManager } from "./rule-manager.js";
import { SeriesDetails } from "./series-details.js";
import * as session from "./session.js";
import { takeKey } from "./shared-view.js";
import { Sharing } from "./sharing.js";

const PIPELINE_EVERY_MS = 2000;
const FEED_STATES = { live: "live", connecting: "connecting", waiting: "reconnecting" };

const $ = (id) => document.getElementById(id);

class Page {
  constructor() {
    this.list = new DeviceList({
      onChosen: () => this.choose(),
      onFirst: (items) => this.chooseInitial(items),
      onWanted: (keys) => this.feed?.setKeys(keys),
      onLabels: () => this.chartCard.draw(),
      onDetails: (one) => this.deviceManager.details(one),
      onSettled: () => this.chartCard.begin(),
    });
    this.deviceManager = new DeviceManager({
      onAdded: (one) => this.added(one),
      onRenamed: (device, name) => this.list.renamed(device, name),
      onChanged: () => this.list.changed(),
    });
    this.alarmSpans = new AlarmSpans({ onChanged: () => this.chartCard?.draw() });
    this.chartCard = new ChartCard({ series: (key) => this.list.series(key), label, alarms: this.alarmSpans });
    this.#addAlarms();
    new Sharing();
    this.login = new Login({ onIn: () => this.entered() });
    $("logout").addEventListener("click", () => this.logOut());
    $("theme").addEventListener("click", () => this.switchTheme());
  }

  #addAlarms() {
    const details = new SeriesDetails((key) => this.list.series(key));
    this.firing = new Firing({
      details,
      onShow: (key) => this.list.choose([key]),
      onLoaded: (changed) => this.alarmsLoaded(changed),
    });
    this.ruleManager = new RuleManager({
      details,
      chart: {
        shown: () => fragment.read().series.map(([device, sensorType]) => ({ device, sensorType })),
        look: (keys) => this.look(keys),
      },
      onTried: (trial) => this.alarmSpans.try(trial),
      onChanged: () => this.firing.refresh(),
    });
  }

  async entered() {
    await logoutSettled();
    if (this.feed) location.reload(); // clears everything of the previous user from memory
    else this.start();
  }

  start() {
    $("login").hidden = true;
    $("app").hidden = false;
    const readOnly = session.readOnly();
    $("user").textContent = $("user").title = readOnly ? "Shared view, read-only" : session.email();
    $("share").hidden = readOnly;
    $("logout").textContent = readOnly ? "Leave" : "Log out";
    for (const button of document.querySelectorAll("[data-add-device]")) button.hidden = readOnly;
    this.ruleManager.start();
    this.feed = new LiveFeed({
      onReading: (reading) => this.receive(reading),
      onAlarms: () => this.firing.receive(),
      onState: (state) => this.showFeedState(state),
    });
    const keysIn = ({ series }) => series.map(([device, sensorType]) => keyOf({ device, sensorType }));
    const restored = keysIn(fragment.read());
    fetchPlotly();
    this.list.start();
    if (restored.length) this.list.choose(restored);
    fragment.onNavigate((moved) => this.list.choose(keysIn(moved)));
    this.feed.run();
    // The pipeline's figures are of all devices.
    this.endPolling = session.limited() ? () => {} : repeat(PIPELINE_EVERY_MS, () => this.refreshPipeline());
    this.chartCard.start();
    this.firing.start();
  }

  // Clear everything of the ended session. The URL fragment stays, except after an explicit log-out.
  stop(notice, hash = location.hash) {
    const email = $("user").textContent;
    this.feed.stop();
    this.endPolling();
    this.deviceManager.close();
    this.list.stop();
    this.chartCard.choose([]);
    this.firing.stop();
    this.ruleManager.stop();
    this.alarmSpans.clear();
    history.replaceState(history.state, "", `${location.pathname}${location.search}${hash}`);
    $("user").textContent = $("user").title = "";
    this.login.show(notice, notice === "expired" ? email : "");
  }

  logOut() {
    if (session.readOnly()) {
      session.leave();
      this.leaveView("viewLeft");
      return;
    }
    this.stop("ending", "");
    logOut((how) => this.login.showNotice(how));
  }

  // Return from a shared view to the session that the tab had before, if it had one.
  leaveView(notice) {
    this.stop(notice, "");
    if (session.loggedIn()) location.reload();
  }

  switchTheme() {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("tidegate.theme", theme);
    this.chartCard.draw();
  }

  // The initial selection: one series of each of the first three sensorTypes.
  chooseInitial(items) {
    if (this.list.chosen.size) return;
    const byType = new Map();
    for (const one of items) if (one.latest && !byType.has(one.sensorType)) byType.set(one.sensorType, keyOf(one));
    this.list.choose([...byType.values()].slice(0, 3));
  }

  choose() {
    const shown = this.chartCard.choose([...this.list.chosen]);
    if (shown.length < this.list.chosen.size) this.list.choose(shown);
  }

  // A new device is selected as soon as it has sent a reading.
  added({ device }) {
    this.awaited = device;
    this.list.expect(device);
  }

  chooseAwaited(reading) {
    this.awaited = null;
    const { chosen } = this.list;
    if (chosen.size < MOST_CHOSEN) this.list.choose([...chosen, keyOf(reading)]);
  }

  alarmsLoaded(changed) {
    this.ruleManager.start(); // a renewed token may allow more
    if (changed || this.alarmSpans.due) this.alarmSpans.refresh();
  }

  // Show where a rule that is tried would have fired.
  look(keys) {
    this.list.choose(keys.slice(0, MOST_CHOSEN));
    this.chartCard.show("24h");
  }

  receive(reading) {
    if (reading.device === this.awaited) this.chooseAwaited(reading);
    this.list.receive(reading);
    this.chartCard.receive(reading);
    this.deviceManager.receive(reading);
  }

  async refreshPipeline() {
    let pipeline = { readingsPerSecond: null, lagSeconds: null };
    try {
      pipeline = await session.getJson("/pipeline");
    } catch {
      // The list reports that the server cannot be reached.
    }
    const { readingsPerSecond: rate, lagSeconds: lag } = pipeline;
    $("rate").textContent = rate === null ? "–" : format.rough(rate);
    $("lag").textContent = lag === null ? "–" : lag < 1 ? `${Math.round(lag * 1000)} ms` : `${lag.toFixed(1)} s`;
  }

  showFeedState(state) {
    $("feed-text").textContent = FEED_STATES[state];
    $("feed").querySelector(".dot").className = state === "live" ? "dot on" : "dot wait";
  }
}

const link = takeKey();
addEventListener("hashchange", () => takeKey() && location.reload()); // another link, opened in this tab
const page = new Page();
session.onSessionEnd((how) => (how === "viewEnded" ? page.leaveView(how) : page.stop(how)));
if (session.loggedIn()) page.start();
else page.login.show(link);
