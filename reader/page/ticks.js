// Tick positions and labels of the axes.

import { decimal, number } from "./format.js";

const [SECOND, MINUTE, HOUR, DAY] = [1000, 60_000, 3_600_000, 86_400_000];
const STEPS_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 15 * SECOND, 30 * SECOND, MINUTE,
  2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY,
  2 * DAY, 7 * DAY, 14 * DAY,
];
const STEPS_MONTHS = [1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200];
const MONTH = 30 * DAY;
// The first Monday since 1970, in days: weeks start on Mondays.
const MONDAY = 4;
const MOST = 200;

// Ticks of a time range at round times of a zone: [{at: ms, text, day}]; `day` is set where it changes.
export function timeTicks(fromMs, toMs, wanted, zone) {
  const least = (toMs - fromMs) / Math.max(1, wanted);
  const step = STEPS_MS.find((ms) => ms >= least);
  const marks = step === undefined ? monthMarks(fromMs, toMs, least, zone) : marksEach(step, fromMs, toMs, zone);
  const options = labelOptions(step);
  const offsets = new Set([fromMs, ...marks, toMs].map((ms) => zone.offset(ms)));
  const telling = offsets.size > 1 && step < DAY; // an hour may occur twice: the offset distinguishes them
  let before = null;
  return marks.map((at) => {
    const day = step < DAY ? zone.text(at, { dateStyle: "medium" }) : "";
    const shown = { at, text: zone.text(at, options) + (telling ? ` ${zone.offsetText(at)}` : ""), day: day === before ? "" : day };
    before = day;
    return shown;
  });
}

function labelOptions(step) {
  const time = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (step < SECOND) return { ...time, second: "2-digit", fractionalSecondDigits: 3 };
  if (step < MINUTE) return { ...time, second: "2-digit" };
  if (step < DAY) return time;
  if (step !== undefined) return { day: "numeric", month: "short", year: "numeric" };
  return { month: "short", year: "numeric" };
}

function marksEach(step, fromMs, toMs, zone) {
  const marks = [];
  const base = step >= 7 * DAY ? MONDAY * DAY : 0;
  let at = fromMs - step;
  while (marks.length < MOST) {
    at = nextMark(at, step, base, zone);
    if (at > toMs) break;
    if (at >= fromMs) marks.push(at);
  }
  return marks;
}

// The next instant at which the zone's clocks show a multiple of the step.
function nextMark(at, step, base, zone) {
  const shown = (Math.floor((zone.shown(at) - base) / step) + 1) * step + base;
  const straight = shown - zone.offset(at);
  if (mod(zone.shown(straight) - base, step) === 0) return straight;
  const turned = zone.instant(shown); // a clock change lies in between
  return turned > at ? turned : straight;
}

function monthMarks(fromMs, toMs, least, zone) {
  const step = STEPS_MONTHS.find((months) => months * MONTH >= least) ?? STEPS_MONTHS.at(-1);
  const begin = new Date(zone.shown(fromMs));
  let month = Math.floor((begin.getUTCFullYear() * 12 + begin.getUTCMonth()) / step) * step;
  const marks = [];
  for (; marks.length < MOST; month += step) {
    const at = zone.instant(Date.UTC(Math.floor(month / 12), mod(month, 12), 1));
    if (at > toMs || Number.isNaN(at)) break;
    if (at >= fromMs) marks.push(at);
  }
  return marks;
}

const mod = (a, b) => ((a % b) + b) % b;

// Ticks at round values between two: [{at, text}], about `wanted` of them.
export function valueTicks(low, high, wanted) {
  const least = (high - low) / Math.max(1, wanted);
  if (!(least > 0) || !Number.isFinite(least)) return [{ at: low, text: number(low) }];
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= least * 0.999) ?? 10 * power;
  const marks = [];
  for (let count = Math.ceil(low / step); count * step <= high && marks.length < MOST; count += 1) {
    const at = step < 1 ? Number((count * step).toPrecision(15)) : count * step;
    if (marks.length && at === marks.at(-1)) break; // finer than a number's precision
    marks.push(at);
  }
  const text = labelOf(step, Math.max(Math.abs(low), Math.abs(high)));
  return marks.map((at) => ({ at, text: text(at) }));
}

// With as many decimal places as the step; exponential for very large and small values, where that is shorter.
function labelOf(step, largest) {
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const digits = Math.floor(Math.log10(largest) - Math.log10(step) + 1e-9);
  const long = largest >= 1e9 || places > 6;
  if (long && digits < 5) return (at) => (at ? at.toExponential(Math.max(0, digits)).replace("e+", "e") : "0");
  return places > 20 || largest >= 1e21 ? number : (at) => decimal(at, places);
}
