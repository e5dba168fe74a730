// Polling: one request at a time, and none while the page is hidden.

// Call at once, and again `ms` after each completion; returns a function that stops it. `call` handles its own errors.
export function repeat(ms, call) {
  let timer;
  let running = false;
  let ended = false;
  const run = async () => {
    if (running || ended || document.hidden) return;
    running = true;
    clearTimeout(timer);
    try {
      await call();
    } finally {
      running = false;
      if (!ended) timer = setTimeout(run, ms);
    }
  };
  document.addEventListener("visibilitychange", run);
  run();
  return () => {
    ended = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", run);
  };
}
