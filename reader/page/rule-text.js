// Rules in words, and values as they are written in a rule's form.

import { parse } from "./exact-json.js";
import { duration, number } from "./format.js";

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const DAY_NAMES = { mon: "Mon", tue: "Tue", wed: "Wed", thu: "Thu", fri: "Fri", sat: "Sat", sun: "Sun" };

// Where a value has come to when the alarm ends.
const INSIDE = { above: "lower", below: "higher", outside: "further in" };

const seconds = (count) => duration(Math.round(count * 1000));

// The condition of a rule.
export function whenText({ when, forSeconds, hysteresis }) {
  const { op, value, low, high, perSeconds } = when;
  if (op === "silent") return `silent for ${seconds(forSeconds)}`;
  const text = {
    above: () => `above ${number(value)}`,
    below: () => `below ${number(value)}`,
    outside: () => `outside ${number(low)} to ${number(high)}`,
    equals: () => `equals ${written(value)}`,
    changed: () => "changes",
    rate: () => `changes by more than ${number(value)} in ${seconds(perSeconds)}`,
    gap: () => "numbers are missing",
  }[op]();
  const ends = hysteresis ? ` (ends ${number(hysteresis)} ${INSIDE[op]})` : "";
  return `${text}${ends}${forSeconds ? `, for ${seconds(forSeconds)}` : ""}`;
}

export function devicesText(devices) {
  if (devices === "all") return "all devices";
  if (devices.name !== undefined) return devices.name;
  return `${number(devices.ids.length)} ${devices.ids.length === 1 ? "device" : "devices"}`;
}

function scheduleText({ days, from, to, zone }) {
  return `${days.map((day) => DAY_NAMES[day]).join(", ")} ${from}–${to} (${zone})`;
}

function notifyText(notify) {
  const webhooks = notify.filter(({ kind }) => kind === "webhook").length;
  const named = (kind, text) => (notify.some((one) => one.kind === kind) ? [text] : []);
  const found = [...named("feed", "live feed"), ...named("email", "e-mail")];
  if (webhooks) found.push(webhooks === 1 ? "webhook" : `${webhooks} webhooks`);
  return found.length ? `notifies ${found.join(", ")}` : "notifies nobody";
}

// The whole rule, without its name and severity.
export function ruleText(rule) {
  const parts = [`${rule.sensorType} of ${devicesText(rule.devices)}: ${whenText(rule)}`];
  if (rule.schedule) parts.push(scheduleText(rule.schedule));
  return [...parts, notifyText(rule.notify ?? [])].join(" · ");
}

// A value as it is written: a number, true, false, or a text; in quotes, if it would otherwise mean another.
export function written(value) {
  return typeof value === "string" && read(value) !== value ? JSON.stringify(value) : String(value);
}

export function read(text) {
  const trimmed = text.trim();
  if (NUMBER.test(trimmed)) return parse(trimmed);
  if (trimmed === "true" || trimmed === "false") return trimmed === "true";
  if (!/^".*"$/.test(trimmed)) return trimmed;
  try {
    return JSON.parse(trimmed);
  } catch {
    return trimmed;
  }
}

// A number or BigInt; undefined for an empty text, NaN for what is no number.
export function readNumber(text) {
  const trimmed = text.trim();
  if (!trimmed) return undefined;
  return NUMBER.test(trimmed) ? parse(trimmed) : NaN;
}
