// The session of the user, and authorized requests.

import { parse, stringify } from "./exact-json.js";
import { bearer, post, ApiError, request } from "./http.js";
import * as tokens from "./credentials.js";

export { ApiError };

const JSON_KIND = { "Content-Type": "application/json" };

let notifyEnd = () => {};

export function loggedIn() {
  return tokens.current() !== null;
}

export function email() {
  return tokens.current()?.email ?? "";
}

// Whether an API key is used, not a user's session: nothing is managed then.
export function readOnly() {
  return Boolean(tokens.current()?.key);
}

// Whether it is an API key for some devices only.
export function limited() {
  return Boolean(tokens.claims().devices);
}

// Whether the token has a scope.
export function allows(scope) {
  return (tokens.claims().scope ?? "").split(" ").includes(scope);
}

// The id of the user, or of the API key.
export function holder() {
  const { key, sub } = tokens.claims();
  return key ?? sub ?? "";
}

// Forget the API key of a shared view; the session that the tab had before goes on.
export function leave() {
  tokens.forget();
}

// Register a callback: "expired" or "viewEnded" when the server rejects the tokens or the API key, "left" when another
// tab has logged out.
export function onSessionEnd(call) {
  notifyEnd = call;
  tokens.onLoggedOut(() => call("left"));
}

export async function logIn(address, password) {
  tokens.keep(await post("/user/login", { email: address, password }), address);
}

export async function signUp(name, address, password) {
  await post("/user/signup", { name, email: address, password });
}

// A valid access token other than `rejected`.
export async function token(rejected) {
  if (tokens.due() || (rejected && tokens.current()?.access === rejected)) await tokens.renew().catch(endIfUnauthorized);
  if (!loggedIn()) throw new ApiError(401, { detail: "You are logged out." });
  return tokens.current().access;
}

function endIfUnauthorized(error) {
  if (error instanceof ApiError && error.status === 401 && loggedIn()) {
    const how = readOnly() ? "viewEnded" : "expired";
    tokens.forget();
    notifyEnd(how);
  }
  throw error;
}

async function call(path, options) {
  let accessToken = await token();
  for (let mayRetry = true; ; mayRetry = false) {
    try {
      return await request(path, { ...options, headers: { ...options.headers, ...bearer(accessToken) } });
    } catch (error) {
      if (error.status !== 401) throw error;
      if (!mayRetry) return endIfUnauthorized(error);
      accessToken = await token(accessToken);
    }
  }
}

export function get(path, query = {}, options = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));
  return call(parameters.size ? `${path}?${parameters}` : path, options);
}

// The response body, with large integers kept exact.
export async function getJson(path, query, options) {
  return parse(await (await get(path, query, options)).text());
}

// POST, PATCH or DELETE; the response body, or null.
export async function send(method, path, body) {
  const response = await call(path, {
    method,
    headers: body === undefined ? {} : JSON_KIND,
    body: body === undefined ? undefined : stringify(body),
  });
  return response.status === 204 ? null : parse((await response.text()) || "null");
}
