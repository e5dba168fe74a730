// The state of the page in the URL fragment, which is not sent to servers: a reload, a bookmark and a copied link show
// the same again.
//
//   #series=press-1/temperature&series=press-2/state&span=24h&zone=Europe%2FBerlin
//   #series=press-1/temperature&span=range&from=2026-10-25T00:00:00.000Z&to=2026-10-25T03:00:00.000Z

export const SPANS = ["live", "1h", "24h", "7d", "all", "range"];
// The browser's own time zone; others are "UTC" and IANA names.
export const BROWSER_ZONE = "browser";

// {series: [[device, sensorType]…], span, from, to, zone}; from and to are milliseconds since 1970, or null. Invalid
// parts are ignored: anyone can write a URL.
export function read() {
  const found = { series: [], span: "live", from: null, to: null, zone: BROWSER_ZONE };
  for (const part of location.hash.slice(1).split("&")) {
    const at = part.indexOf("=");
    const [name, value] = [part.slice(0, at), part.slice(at + 1)];
    if (name === "series") found.series.push(...seriesOf(value));
    else if (name === "span" && SPANS.includes(value)) found.span = value;
    else if (name === "from" || name === "to") found[name] = timeOf(value);
    else if (name === "zone") found.zone = decoded(value) || BROWSER_ZONE;
  }
  const range = found.from !== null && found.to !== null && found.from < found.to;
  if (found.span === "range" && !range) found.span = "live";
  if (found.span !== "range") found.from = found.to = null;
  return found;
}

// Update the given values, keep the rest. Adds no entry to the browser's history: zooming would add hundreds.
export function write(changes) {
  const kept = { ...read(), ...changes };
  const parts = kept.series.map((names) => `series=${names.map(encodeURIComponent).join("/")}`);
  if (kept.span !== "live") parts.push(`span=${kept.span}`);
  if (kept.span === "range") {
    parts.push(`from=${new Date(kept.from).toISOString()}`, `to=${new Date(kept.to).toISOString()}`);
  }
  if (kept.zone !== BROWSER_ZONE) parts.push(`zone=${encodeURIComponent(kept.zone)}`);
  const hash = parts.length ? `#${parts.join("&")}` : "";
  if (hash !== location.hash) history.replaceState(history.state, "", `${location.pathname}${location.search}${hash}`);
}

// Register a callback for navigation to another fragment: by link, by hand or through the browser's history.
export function onNavigate(call) {
  addEventListener("hashchange", () => call(read()));
}

function seriesOf(text) {
  const names = text.split("/").map(decoded);
  return names.length === 2 && names.every(Boolean) ? [names] : [];
}

function timeOf(text) {
  const ms = Date.parse(decoded(text));
  return Number.isNaN(ms) ? null : ms;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
