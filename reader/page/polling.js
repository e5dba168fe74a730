// What is asked again and again: one question at a time, and none while the page is hidden.

// Call at once, and again `ms` after each answer; returns what ends it. `call` answers for its own errors.
export function repeat(ms, call) {
  let timer;
  let asking = false;
  let ended = false;
  const run = async () => {
    if (asking || ended || document.hidden) return;
    asking = true;
    clearTimeout(timer);
    try {
      await call();
    } finally {
      asking = false;
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
