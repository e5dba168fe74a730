// Formats numbers and times. Measured values keep all their digits.

import { BROWSER_ZONE } from "./fragment.js";
import { now } from "./clock.js";
import { Zone } from "./zone.js";

const SECONDS = { timeStyle: "medium" };
const DAY_MINUTES = { dateStyle: "medium", timeStyle: "short" };
const DAY_MS = 86_400_000;
// Outside this range, a number's plain digits would be mostly zeros.
const PLAIN = [1e-7, 1e21];
const EXACT = new Intl.NumberFormat(undefined, { maximumFractionDigits: 20 });
const ROUGH = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 5 });
const SHARE = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const fixed = new Map();

let zone = new Zone(BROWSER_ZONE);

// Set the time zone for formatting times.
export function useZone(other) {
  zone = other;
}

// A reading's value with its unit; booleans are on and off.
export function value(of, unit = "") {
  if (of === null || of === undefined) return "–";
  const text = typeof of === "boolean" ? (of ? "on" : "off") : typeof of === "string" ? of : number(of);
  return unit ? `${text} ${unit}` : text;
}

// A number or BigInt, exactly: the shortest digits that identify it.
export function number(of) {
  if (typeof of === "bigint") return EXACT.format(of);
  const size = Math.abs(of);
  if (!Number.isFinite(of) || (size && (size < PLAIN[0] || size >= PLAIN[1]))) return String(of);
  return EXACT.format(String(of));
}

// A number with a fixed number of decimal places.
export function decimal(of, places = 0) {
  if (!fixed.has(places)) {
    const digits = { minimumFractionDigits: places, maximumFractionDigits: places };
    fixed.set(places, new Intl.NumberFormat(undefined, digits));
  }
  return fixed.get(places).format(String(of));
}

// A computed figure, such as a rate, with five significant digits.
export function rough(of) {
  return ROUGH.format(of);
}

export function readings(count) {
  return `${number(count)} ${count === 1 ? "reading" : "readings"}`;
}

export function share(of) {
  return SHARE.format(of);
}

// A share that is 100 % only if nothing is missing.
export function arrived(received, expected) {
  if (received >= expected) return "100%";
  const percent = (100 * received) / expected;
  return `${Math.min(percent, 99.99).toFixed(percent < 99 ? 0 : percent < 99.9 ? 1 : 2)}%`;
}

export function time(ms) {
  return zone.text(ms, Math.abs(now() - ms) < DAY_MS ? SECONDS : DAY_MINUTES);
}

export function span(fromMs, toMs) {
  const seconds = Math.abs(now() - toMs) < DAY_MS && toMs - fromMs < DAY_MS;
  return zone.rangeText(fromMs, toMs, seconds ? SECONDS : DAY_MINUTES);
}

export function age(ms) {
  const passed = now() - ms;
  return passed < 1500 ? "now" : lasting(passed);
}

// A length of time, roughly.
export function lasting(ms) {
  const seconds = ms / 1000;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

export function duration(ms) {
  for (const [size, name] of [[DAY_MS, "d"], [3_600_000, "h"], [60_000, "min"], [1000, "s"]]) {
    if (ms >= size && ms % size === 0) return `${ms / size} ${name}`;
  }
  return `${ms} ms`;
}
