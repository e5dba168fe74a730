// Logging out: the tokens are forgotten at once, and the session ends at the server as soon as that answers.

import { bearer, post } from "./http.js";
import * as tokens from "./credentials.js";

const PAUSE_MS = [1000, 30_000];
const TRY_MS = 5000;

let leaving = null;
let wake = () => {};

// Calls `tell("ended")` when the server has ended the session, `tell("waiting")` when it could not be asked and is asked
// again for as long as the page is open.
export function logOut(tell) {
  const left = tokens.leave();
  leaving = left ? revoked(left, tell) : Promise.resolve(tell("ended"));
}

// What still has to be ended is asked for once more: before the page goes.
export async function settled() {
  wake();
  await Promise.race([leaving, new Promise((done) => setTimeout(done, TRY_MS))]);
}

async function revoked(left, tell) {
  for (let pause = PAUSE_MS[0]; ; pause = Math.min(2 * pause, PAUSE_MS[1])) {
    try {
      await end(left);
      return tell("ended");
    } catch (error) {
      if (over(error)) return tell("ended");
      tell("waiting");
    }
    await new Promise((done) => {
      wake = done;
      setTimeout(done, pause);
    });
  }
}

const over = ({ status, code }) => status >= 400 && status < 500 && status !== 429 && code !== "refresh_used";

async function end(left) {
  const options = () => ({ keepalive: true, signal: AbortSignal.timeout(TRY_MS) });
  const ask = () => post("/user/logout", { refreshToken: left.refresh }, { ...options(), headers: bearer(left.access) });
  try {
    await ask();
  } catch (error) {
    if (error.status !== 401) throw error;
    // The access token may have expired: the refresh token lives for weeks, and must not stay behind.
    const newer = await post("/user/refresh", { refreshToken: left.refresh }, options());
    Object.assign(left, { access: newer.accessToken, refresh: newer.refreshToken });
    await ask();
  }
}
