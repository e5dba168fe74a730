// One live feed for all of a user's tabs: browsers open six connections to a server at most, and a feed holds one.
//
// A shared worker, named by its user. It holds the feed while a tab that is seen wants it, and hands every tab the
// readings that it asked for. Tokens stay with the tabs: the worker asks one of them for a token whenever it connects.
//
// From a tab:  {wants, keys}       whether it is seen; the series ("device\nsensorType") or devices it wants, null for all
//              {answer, token}     to {ask}; null: nobody is logged in there; undefined: the server gave none
//              {pong} · {bye}
// To a tab:    {state} · {readings} · {ask, refused} · {ping}

import { Feed, Refused } from "./feed.js";

const PING_MS = 15_000;
// A tab that was ended without a word.
const SILENT_MS = 40_000;
const ANSWER_MS = 10_000;
// A feed that was closed for longer does not go on where it was: tabs load anew what they show.
const RESUMED_WITHIN_MS = 10_000;

const tabs = new Set();
const answers = new Map();
let feed = null;
let state = "connecting";
let last = { id: "", at: -Infinity };
let asked = 0;

self.onconnect = ({ ports: [port] }) => {
  const tab = { port, wants: false, keys: null, heardAt: performance.now() };
  port.onmessage = ({ data }) => take(tab, data);
  port.onclose = () => take(tab, { bye: true }); // where the browser tells it
  port.postMessage({ state });
};

function take(tab, data) {
  tab.heardAt = performance.now();
  if (data.answer !== undefined) answers.get(data.answer)?.(data.token);
  if (data.bye) tabs.delete(tab);
  else tabs.add(tab);
  if (data.wants !== undefined) {
    tab.wants = data.wants;
    tab.keys = data.keys && new Set(data.keys);
  }
  follow();
}

const wanting = () => [...tabs].filter((tab) => tab.wants);

function follow() {
  const wanted = wanting().length > 0;
  if (wanted && !feed) open();
  else if (!wanted && feed) close();
}

function open() {
  const mine = (feed = new Feed({ token, onReadings: hand, onState: tell }));
  if (performance.now() - last.at < RESUMED_WITHIN_MS) feed.lastId = last.id;
  feed.run().then(() => {
    if (feed === mine) feed = null; // nobody is logged in; the next word of a tab begins anew
  });
}

function close() {
  last = { id: feed.lastId, at: performance.now() };
  feed.stop();
  feed = null;
}

function tell(now) {
  state = now;
  for (const tab of tabs) tab.port.postMessage({ state });
}

function hand(readings) {
  for (const { port, keys } of wanting()) {
    const own = keys ? readings.filter((one) => wanted(one, keys)) : readings;
    if (own.length) port.postMessage({ readings: own });
  }
}

const wanted = ({ device, sensorType }, keys) => keys.has(`${device}\n${sensorType}`) || keys.has(device);

// Of the first tab that has one.
async function token(refused) {
  let over = true;
  for (const tab of wanting()) {
    const found = await answerOf(tab, refused);
    if (found) return found;
    over &&= found === null;
  }
  throw over ? new Refused(401, { detail: "No tab is logged in." }) : new Error("no token for now");
}

function answerOf(tab, refused) {
  const ask = (asked += 1);
  return new Promise((done) => {
    answers.set(ask, done);
    setTimeout(done, ANSWER_MS);
    tab.port.postMessage({ ask, refused });
  }).finally(() => answers.delete(ask));
}

setInterval(() => {
  for (const tab of wanting()) {
    if (performance.now() - tab.heardAt > SILENT_MS) tabs.delete(tab);
    else tab.port.postMessage({ ping: true });
  }
  follow();
}, PING_MS);
