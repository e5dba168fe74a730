// The tokens of the session, or the API key of a shared view, which takes precedence while it is open. They are kept as
// long as the tab, and sent only in a header.
//
// A duplicated tab starts with a copy of the original's tokens, and a refresh token can be used once. So a tab that
// renews its tokens broadcasts them, and first asks the other tabs for newer tokens derived from its own.

import { ApiError, post } from "./http.js";

const KEY = "tidegate.session";
const VIEW = "tidegate.view";
const RENEW_BEFORE_MS = 60_000;
const ASK_TIMEOUT_MS = 150;
// How long the server treats a second use as a race; after that, as theft.
const REUSE_WINDOW_MS = 11_000;
const MAX_REMEMBERED = 100;

const tabs = new BroadcastChannel(KEY);
let session = read(KEY);
let view = read(VIEW);
let renewing = null;
let notBefore = 0;
let resolveNewer = () => {};
let notifyLoggedOut = () => {};

function read(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name));
  } catch {
    return null;
  }
}

// {access, refresh, until, email, before}, or null. `before`: the used refresh tokens these were derived from. In a
// shared view {access, key}: the API key's token and id.
export function current() {
  return view ?? session;
}

// The claims of the access token; {} if they cannot be decoded.
export function claims() {
  return claimsOf(current()?.access);
}

function claimsOf(token) {
  try {
    return JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))) ?? {};
  } catch {
    return {};
  }
}

// Keep an API key, beside the session; false, and nothing changes, for what is no API key that may read.
export function keepKey(token) {
  const { key, scope } = claimsOf(token);
  if (![key, scope].every((claim) => typeof claim === "string" && claim)) return false;
  if (!scope.split(" ").includes("readings:read")) return false;
  view = { access: token, key };
  sessionStorage.setItem(VIEW, JSON.stringify(view));
  return true;
}

// Store the response to a log-in or a renewal.
export function keep(answer, email, before = []) {
  store({
    email,
    access: answer.accessToken,
    refresh: answer.refreshToken,
    until: Date.now() + answer.expiresIn * 1000,
    before: before.slice(-MAX_REMEMBERED),
  });
}

function store(newer) {
  session = newer;
  notBefore = 0;
  sessionStorage.setItem(KEY, JSON.stringify(session));
}

// Forget the shared view, and keep the session for afterwards; without a view, forget the session.
export function forget() {
  if (!view) return forgetSession();
  view = null;
  sessionStorage.removeItem(VIEW);
}

function forgetSession() {
  session = null;
  sessionStorage.removeItem(KEY);
}

// Forget the tokens here and in every tab of the same session; returns what they were.
export function forgetEverywhere() {
  const forgotten = session;
  if (forgotten) tabs.postMessage({ leaves: claimsOf(forgotten.access).sid });
  forgetSession();
  return forgotten;
}

// Register a callback for a log-out of this session in another tab.
export function onLoggedOut(call) {
  notifyLoggedOut = call;
}

tabs.onmessage = ({ data: { asks, tells, leaves } }) => {
  if (asks && session?.before?.includes(asks)) tabs.postMessage({ tells: session });
  if (tells && tells.before.includes(session?.refresh)) {
    store(tells);
    resolveNewer();
  }
  if (leaves && claimsOf(session?.access).sid === leaves) {
    forgetSession();
    if (!view) notifyLoggedOut();
  }
};

// Resolves when another tab has broadcast newer tokens, or after `ms`.
function newerTokens(ms, question) {
  return new Promise((done) => {
    resolveNewer = done;
    setTimeout(done, ms);
    if (question) tabs.postMessage(question);
  });
}

export function due() {
  return !view && session !== null && Date.now() > session.until - RENEW_BEFORE_MS;
}

// One renewal at a time: a refresh token can be used once. ApiError if the session has ended, or in a shared view.
export function renew() {
  if (view) return Promise.reject(new ApiError(401, { detail: "The API key has ended." }));
  renewing ??= renewNow().finally(() => {
    renewing = null;
  });
  return renewing;
}

async function renewNow() {
  const own = session;
  for (;;) {
    await newerTokens(ASK_TIMEOUT_MS, { asks: own.refresh });
    const wait = notBefore - Date.now();
    if (session === own && wait > 0) {
      if (Date.now() < own.until) return; // the access token is valid until then
      await newerTokens(wait);
    }
    if (session !== own) return; // renewed by another tab, or logged out
    try {
      const answer = await post("/user/refresh", { refreshToken: own.refresh });
      if (session !== own) return;
      keep(answer, own.email, [...(own.before ?? []), own.refresh]);
      tabs.postMessage({ tells: session });
      return;
    } catch (error) {
      if (session !== own) return;
      if (error.code !== "refresh_used") throw error;
      // Another tab was faster and will broadcast its tokens. If none does, the response was lost or the token stolen:
      // a further use after this time makes the server end the session for everyone.
      notBefore = Date.now() + REUSE_WINDOW_MS;
    }
  }
}
