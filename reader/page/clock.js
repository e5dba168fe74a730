// What time it is by the server's clock: the browser's may be wrong by minutes.

// `Date` says whole seconds, and an answer is on its way for a while.
const SECOND_MS = 1000;
const ON_ITS_WAY_MS = 2000;

let offset = 0;

// Milliseconds since 1970, by the server's clock; by the browser's own until an answer has told more.
export function now() {
  return Date.now() + offset;
}

// Take an answer's `Date` header (RFC 9110, 6.6.1). A clock that agrees with it stays as it is, so that time never
// trembles; one that was set, or woke up, is corrected by the next answer.
export function learn(dateHeader) {
  const told = Date.parse(dateHeader ?? "");
  if (Number.isNaN(told)) return;
  const least = told - Date.now();
  if (offset < least || offset > least + SECOND_MS + ON_ITS_WAY_MS) offset = least + SECOND_MS / 2;
}
