// Who is logged in, and calls in their name.

import { parse } from "./exact.js";
import { bearer, post, Refused, request } from "./http.js";
import * as tokens from "./credentials.js";

export { Refused };

const JSON_KIND = { "Content-Type": "application/json" };

let onEnd = () => {};

export function loggedIn() {
  return tokens.current() !== null;
}

export function email() {
  return tokens.current()?.email ?? "";
}

// The user's id.
export function owner() {
  return tokens.claims().sub ?? "";
}

// Call with "expired" when the server takes the tokens no more, with "left" when another tab has logged out.
export function whenEnded(call) {
  onEnd = call;
  tokens.whenLeft(() => call("left"));
}

export async function logIn(address, password) {
  tokens.keep(await post("/user/login", { email: address, password }), address);
}

export async function signUp(name, address, password) {
  await post("/user/signup", { name, email: address, password });
}

// An access token that serves, another one than `refused`.
export async function token(refused) {
  if (tokens.due() || (refused && tokens.current()?.access === refused)) await tokens.renew().catch(ended);
  if (!loggedIn()) throw new Refused(401, { detail: "You are logged out." });
  return tokens.current().access;
}

function ended(error) {
  if (error instanceof Refused && error.status === 401 && loggedIn()) {
    tokens.forget();
    onEnd("expired");
  }
  throw error;
}

async function call(path, options) {
  let used = await token();
  for (let again = true; ; again = false) {
    try {
      return await request(path, { ...options, headers: { ...options.headers, ...bearer(used) } });
    } catch (error) {
      if (error.status !== 401) throw error;
      if (!again) return ended(error);
      used = await token(used);
    }
  }
}

export function get(path, query = {}, options = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));
  return call(parameters.size ? `${path}?${parameters}` : path, options);
}

// The answer's body, its large integers exact.
export async function getJson(path, query, options) {
  return parse(await (await get(path, query, options)).text());
}

// POST, PATCH or DELETE; the answer's body, null where it has none.
export async function send(method, path, body) {
  const response = await call(path, {
    method,
    headers: body === undefined ? {} : JSON_KIND,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return response.status === 204 ? null : response.json();
}
