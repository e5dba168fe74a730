// The tokens of who is logged in. They live as long as the tab, and go into a header only.
//
// A duplicated tab begins with a copy of its original's tokens, and a refresh token serves once. So a tab that renews
// tells the others, and one that is about to renew asks them first: who has the tokens that came of mine?

import { post } from "./http.js";

const KEY = "tidegate.session";
const RENEW_BEFORE_MS = 60_000;
const ASK_MS = 150;
// For how long the server takes a second use for a race; after it, for theft.
const RACE_MS = 11_000;
const MOST_REMEMBERED = 100;

const tabs = new BroadcastChannel(KEY);
let session = read();
let renewing = null;
let notBefore = 0;
let onNews = () => {};
let onLeft = () => {};

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}

// {access, refresh, until, email, before}, or null. `before`: the refresh tokens that these came of, all of them used.
export function current() {
  return session;
}

// The claims of the access token, as the server wrote them; {} where they cannot be read.
export function claims() {
  try {
    return JSON.parse(atob(session.access.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  } catch {
    return {};
  }
}

// Take what the server has answered to a log-in or a renewal.
export function keep(answer, email, before = []) {
  store({
    email,
    access: answer.accessToken,
    refresh: answer.refreshToken,
    until: Date.now() + answer.expiresIn * 1000,
    before: before.slice(-MOST_REMEMBERED),
  });
}

function store(newer) {
  session = newer;
  notBefore = 0;
  sessionStorage.setItem(KEY, JSON.stringify(session));
}

export function forget() {
  session = null;
  sessionStorage.removeItem(KEY);
}

// Forget them here and in every tab that goes on with the same session; returns what they were.
export function leave() {
  const left = session;
  if (left) tabs.postMessage({ leaves: claims().sid });
  forget();
  return left;
}

// Call when another tab has logged out of this session.
export function whenLeft(call) {
  onLeft = call;
}

tabs.onmessage = ({ data: { asks, tells, leaves } }) => {
  if (asks && session?.before?.includes(asks)) tabs.postMessage({ tells: session });
  if (tells && tells.before.includes(session?.refresh)) {
    store(tells);
    onNews();
  }
  if (leaves && claims().sid === leaves) {
    forget();
    onLeft();
  }
};

// Resolves when another tab has told newer tokens, or after a while.
function news(ms, question) {
  return new Promise((done) => {
    onNews = done;
    setTimeout(done, ms);
    if (question) tabs.postMessage(question);
  });
}

export function due() {
  return session !== null && Date.now() > session.until - RENEW_BEFORE_MS;
}

// One renewal at a time: a refresh token serves once. Refused where the session is over.
export function renew() {
  renewing ??= renewed().finally(() => {
    renewing = null;
  });
  return renewing;
}

async function renewed() {
  const mine = session;
  for (;;) {
    await news(ASK_MS, { asks: mine.refresh });
    const wait = notBefore - Date.now();
    if (session === mine && wait > 0) {
      if (Date.now() < mine.until) return; // the access token serves that long
      await news(wait);
    }
    if (session !== mine) return; // another tab has renewed it, or this one was logged out
    try {
      const answer = await post("/user/refresh", { refreshToken: mine.refresh });
      if (session !== mine) return;
      keep(answer, mine.email, [...(mine.before ?? []), mine.refresh]);
      tabs.postMessage({ tells: session });
      return;
    } catch (error) {
      if (session !== mine) return;
      if (error.code !== "refresh_used") throw error;
      // Another tab was faster, and tells its tokens when it has them. If none does, the answer was lost or somebody
      // else has the token: when it comes again after this time, the server ends the session for whoever has it.
      notBefore = Date.now() + RACE_MS;
    }
  }
}
