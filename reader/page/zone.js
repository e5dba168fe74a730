// A time zone: formats instants and parses local times.
//
// The rest of the page uses milliseconds since 1970, UTC, so that nothing runs backwards when a zone's clocks do.

import { BROWSER_ZONE } from "./fragment.js";

const FIELDS = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" };
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

export const browserZone = () => new Intl.DateTimeFormat().resolvedOptions().timeZone;

export class Zone {
  // `chosen`: BROWSER_ZONE, "UTC" or a name of the IANA database; RangeError if the browser does not know it.
  constructor(chosen) {
    this.chosen = chosen;
    this.name = chosen === BROWSER_ZONE ? browserZone() : chosen;
    this.formats = new Map();
    this.fields = new Intl.DateTimeFormat("en-US", { ...FIELDS, era: "short", hourCycle: "h23", timeZone: this.name });
  }

  // Format an instant in this zone, with Intl's options.
  text(ms, options) {
    return this.#format(options).format(ms);
  }

  rangeText(fromMs, toMs, options) {
    return this.#format(options).formatRange(fromMs, toMs);
  }

  // The zone's offset from UTC at an instant, in milliseconds.
  offset(ms) {
    const parts = {};
    for (const { type, value } of this.fields.formatToParts(ms)) parts[type] = value;
    const year = parts.era === "BC" ? 1 - parts.year : Number(parts.year);
    const shown = new Date(0);
    shown.setUTCFullYear(year, parts.month - 1, parts.day);
    shown.setUTCHours(parts.hour, parts.minute, parts.second);
    return shown.getTime() - Math.floor(ms / 1000) * 1000;
  }

  offsetText(ms) {
    const minutes = Math.round(this.offset(ms) / MINUTE_MS);
    const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
    return `${minutes < 0 ? "−" : "+"}${String(hours).padStart(2, "0")}:${String(rest).padStart(2, "0")}`;
  }

  // The local time, as if it were UTC.
  shown(ms) {
    return ms + this.offset(ms);
  }

  // The instant of a local time. A time that occurs twice means the first, or with `later` the second; a skipped time
  // is counted on from before the clock change.
  instant(shownMs, later = false) {
    const before = shownMs - this.offset(shownMs - DAY_MS);
    const after = shownMs - this.offset(shownMs + DAY_MS);
    const fits = [before, after].filter((ms) => this.shown(ms) === shownMs).sort((a, b) => a - b);
    return fits.length ? fits[later ? fits.length - 1 : 0] : before;
  }

  #format(options) {
    const key = JSON.stringify(options);
    if (!this.formats.has(key)) {
      this.formats.set(key, new Intl.DateTimeFormat(undefined, { ...options, timeZone: this.name }));
    }
    return this.formats.get(key);
  }
}
