// Logging out: the tokens are deleted at once, and the session is ended on the server as soon as it responds.

import { bearer, post } from "./http.js";
import * as tokens from "./credentials.js";

const RETRY_MS = [1000, 30_000];
const TRY_MS = 5000;

let logout = null;
let wake = () => {};

// Calls `onState("ended")` when the server has ended the session, `onState("waiting")` when it cannot be reached;
// retries as long as the page is open.
export function logOut(onState) {
  const forgotten = tokens.forgetEverywhere();
  logout = forgotten ? endUntilDone(forgotten, onState) : Promise.resolve(onState("ended"));
}

// Retry a pending log-out once more, before the page is reloaded.
export async function logoutSettled() {
  wake();
  await Promise.race([logout, new Promise((done) => setTimeout(done, TRY_MS))]);
}

async function endUntilDone(forgotten, onState) {
  for (let delay = RETRY_MS[0]; ; delay = Math.min(2 * delay, RETRY_MS[1])) {
    try {
      await end(forgotten);
      return onState("ended");
    } catch (error) {
      if (isFinal(error)) return onState("ended");
      onState("waiting");
    }
    await new Promise((done) => {
      wake = done;
      setTimeout(done, delay);
    });
  }
}

const isFinal = ({ status, code }) => status >= 400 && status < 500 && status !== 429 && code !== "refresh_used";

async function end(forgotten) {
  const options = () => ({ keepalive: true, signal: AbortSignal.timeout(TRY_MS) });
  const requestLogout = () => post("/user/logout", { refreshToken: forgotten.refresh }, { ...options(), headers: bearer(forgotten.access) });
  try {
    await requestLogout();
  } catch (error) {
    if (error.status !== 401) throw error;
    // The access token may have expired; the refresh token is valid for weeks and must be revoked.
    const newer = await post("/user/refresh", { refreshToken: forgotten.refresh }, options());
    Object.assign(forgotten, { access: newer.accessToken, refresh: newer.refreshToken });
    await requestLogout();
  }
}
