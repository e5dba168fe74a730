// Severities of alarms: in words, and in colours that are never alone in saying it.

import { part } from "./kept-rows.js";
import { set } from "./messages.js";

const WORDS = { critical: "Critical", warning: "Warning", info: "Info" };
// Names of colours in style.css, and how the edge of what is shaded is drawn.
export const COLOURS = { critical: "bad", warning: "warn", info: "accent" };
export const DASHES = { critical: "solid", warning: "dash", info: "dot" };

export function severityMark(severity) {
  const mark = part("span", "severity");
  if (severity) setSeverity(mark, severity);
  return mark;
}

export function setSeverity(mark, severity) {
  mark.className = `severity ${severity}`;
  set(mark, WORDS[severity]);
}
