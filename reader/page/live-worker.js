// One live feed for all tabs of a user: browsers open at most six connections to a server, and a feed takes one.
//
// A shared worker, named by its user or API key. It keeps the feed open while a visible tab wants it, and sends each tab the
// readings it requested, and every alarm. Tokens stay in the tabs: the worker requests one from them whenever it connects.
//
// From a tab:  {wants, keys}       whether it is visible; the series ("device\nsensorType") or devices, null for all
//              {answer, token}     the reply to {ask}; null: logged out; undefined: the server returned none
//              {pong} · {bye}
// To a tab:    {state} · {readings} · {alarms} · {ask, refused} · {ping}

import { Feed, ApiError } from "./feed.js";

const PING_MS = 15_000;
// A tab silent for this long was closed without {bye}.
const TAB_TIMEOUT_MS = 40_000;
const TOKEN_TIMEOUT_MS = 10_000;
// A feed closed for longer is not resumed: tabs reload what they show.
const RESUME_WITHIN_MS = 10_000;

const tabs = new Set();
const tokenRequests = new Map();
let feed = null;
let state = "connecting";
let last = { id: "", at: -Infinity };
let lastRequest = 0;

self.onconnect = ({ ports: [port] }) => {
  const tab = { port, wants: false, keys: null, lastReceivedAt: performance.now() };
  port.onmessage = ({ data }) => onMessage(tab, data);
  port.onclose = () => onMessage(tab, { bye: true }); // where supported
  port.postMessage({ state });
};

function onMessage(tab, data) {
  tab.lastReceivedAt = performance.now();
  if (data.answer !== undefined) tokenRequests.get(data.answer)?.(data.token);
  if (data.bye) tabs.delete(tab);
  else tabs.add(tab);
  if (data.wants !== undefined) {
    tab.wants = data.wants;
    tab.keys = data.keys && new Set(data.keys);
  }
  update();
}

const wantingTabs = () => [...tabs].filter((tab) => tab.wants);

function update() {
  const wanted = wantingTabs().length > 0;
  if (wanted && !feed) open();
  else if (!wanted && feed) close();
}

function open() {
  const opened = (feed = new Feed({ token, onReadings: deliver, onAlarms: deliverAlarms, onState: setState }));
  if (performance.now() - last.at < RESUME_WITHIN_MS) feed.lastId = last.id;
  feed.run().then(() => {
    if (feed === opened) feed = null; // logged out; the next message of a tab opens a new feed
  });
}

function close() {
  last = { id: feed.lastId, at: performance.now() };
  feed.stop();
  feed = null;
}

function setState(newState) {
  state = newState;
  for (const tab of tabs) tab.port.postMessage({ state });
}

function deliver(readings) {
  for (const { port, keys } of wantingTabs()) {
    const matching = keys ? readings.filter((one) => isWanted(one, keys)) : readings;
    if (matching.length) port.postMessage({ readings: matching });
  }
}

function deliverAlarms(alarms) {
  for (const { port } of wantingTabs()) port.postMessage({ alarms });
}

const isWanted = ({ device, sensorType }, keys) => keys.has(`${device}\n${sensorType}`) || keys.has(device);

// A token of the first tab that has one.
async function token(refused) {
  let loggedOut = true;
  for (const tab of wantingTabs()) {
    const found = await tokenOf(tab, refused);
    if (found) return found;
    loggedOut &&= found === null;
  }
  throw loggedOut ? new ApiError(401, { detail: "No tab is logged in." }) : new Error("no token for now");
}

function tokenOf(tab, refused) {
  const ask = (lastRequest += 1);
  return new Promise((done) => {
    tokenRequests.set(ask, done);
    setTimeout(done, TOKEN_TIMEOUT_MS);
    tab.port.postMessage({ ask, refused });
  }).finally(() => tokenRequests.delete(ask));
}

setInterval(() => {
  for (const tab of wantingTabs()) {
    if (performance.now() - tab.lastReceivedAt > TAB_TIMEOUT_MS) tabs.delete(tab);
    else tab.port.postMessage({ ping: true });
  }
  update();
}, PING_MS);
