// Plotly's script is large and takes most of a second to run: it is fetched at once, and run after the first rendering.

const SOURCE = "/dashboard/plotly.min.js";
const AGAIN_MS = 5000;

let running = false;

export function fetchPlotly() {
  const link = document.createElement("link");
  Object.assign(link, { rel: "preload", as: "script", href: SOURCE });
  document.head.append(link);
}

// Run it after the next frame; calls `ran()` once loaded, `failed()` when loading failed and is retried.
export function runPlotly(ran, failed) {
  if (running) return;
  running = true;
  if (document.hidden) append(ran, failed); // a hidden page has no frames
  else requestAnimationFrame(() => setTimeout(() => append(ran, failed)));
}

function append(ran, failed) {
  const script = document.createElement("script");
  script.src = SOURCE;
  script.addEventListener("load", ran);
  script.addEventListener("error", () => {
    script.remove();
    failed();
    setTimeout(() => append(ran, failed), AGAIN_MS);
  });
  document.head.append(script);
}
