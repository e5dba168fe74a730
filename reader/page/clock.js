// The time by the server's clock: the browser's may be wrong by minutes.

// `Date` has whole seconds, and a response takes time to arrive.
const SECOND_MS = 1000;
const LATENCY_MS = 2000;

let offset = 0;

// Milliseconds since 1970, by the server's clock; by the browser's until the first response.
export function now() {
  return Date.now() + offset;
}

// Synchronize with a response's `Date` header (RFC 9110, 6.6.1). An offset that agrees with it is kept, so that time
// does not jitter; after the clock was set or the computer slept, the next response corrects it.
export function synchronize(dateHeader) {
  const serverMs = Date.parse(dateHeader ?? "");
  if (Number.isNaN(serverMs)) return;
  const least = serverMs - Date.now();
  if (offset < least || offset > least + SECOND_MS + LATENCY_MS) offset = least + SECOND_MS / 2;
}
