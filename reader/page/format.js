// How figures and times are written.

const NUMBER = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 5 });
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DAY_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const DAY_MS = 86_400_000;

export function value(of, unit = "") {
  if (of === null || of === undefined) return "–";
  const text = typeof of === "number" ? number(of) : String(of);
  return unit ? `${text} ${unit}` : text;
}

export function number(of) {
  return Number.isInteger(of) && Math.abs(of) < 1e12 ? of.toLocaleString() : NUMBER.format(of);
}

export function time(ms) {
  return Math.abs(Date.now() - ms) < DAY_MS ? TIME.format(ms) : DAY_TIME.format(ms);
}

export function span(fromMs, toMs) {
  const seconds = Math.abs(Date.now() - toMs) < DAY_MS && toMs - fromMs < DAY_MS;
  return (seconds ? TIME : DAY_TIME).formatRange(fromMs, toMs);
}

export function age(ms) {
  const seconds = Math.max(0, (Date.now() - ms) / 1000);
  if (seconds < 1.5) return "now";
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
