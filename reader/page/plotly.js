// Plotly's script is large, and running it takes most of a second: it is fetched at once, and run when there is time.

const SOURCE = "/dashboard/plotly.min.js";
const AGAIN_MS = 5000;

let running = false;

export function fetchPlotly() {
  const link = document.createElement("link");
  Object.assign(link, { rel: "preload", as: "script", href: SOURCE });
  document.head.append(link);
}

// Run it once what was just drawn is seen; `ran()` when it is there, `failed()` when it did not come and is tried again.
export function runPlotly(ran, failed) {
  if (running) return;
  running = true;
  if (document.hidden) append(ran, failed); // it has no frames
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
