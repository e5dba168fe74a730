// The chart's stacked panels: one for each unit of a sensorType, one for its booleans, and a band for each text series.

import { valueTicks } from "./ticks.js";

const NUMBERS_PX = [150, 320];
const BOOLEANS_PX = 84;
const BAND_PX = 58;
const TICK_PX = 26;
const ROOM = 0.07;
const LARGEST = 8e307;

export function panelsOf(parts, labelOf, heightPx) {
  const panels = new Map();
  for (const part of parts) {
    const { line, kind, unit } = part;
    const key = [kind, line.sensorType, unit, kind === "text" ? line.device : ""].join("\n");
    if (!panels.has(key)) panels.set(key, { kind, title: titleOf(part, labelOf), parts: [] });
    panels.get(key).parts.push(part);
  }
  const found = [...panels.values()];
  const numbers = found.filter((panel) => panel.kind === "number").length;
  const others = found.reduce((sum, { kind }) => sum + ({ boolean: BOOLEANS_PX, text: BAND_PX }[kind] ?? 0), 0);
  const px = Math.min(NUMBERS_PX[1], Math.max(NUMBERS_PX[0], (heightPx - others) / Math.max(1, numbers)));
  for (const panel of found) {
    panel.px = { number: px, boolean: BOOLEANS_PX, text: BAND_PX }[panel.kind];
    Object.assign(panel, scaleOf(panel));
  }
  return found;
}

function titleOf({ line, kind, unit }, labelOf) {
  if (kind === "text") return `${line.sensorType} · ${labelOf(line)}`;
  return unit ? `${line.sensorType} (${unit})` : line.sensorType;
}

// {range: [low, high], ticks: [{at, text}…]}
function scaleOf({ kind, parts, px }) {
  if (kind === "text") return { range: [0, 1], ticks: [] };
  if (kind === "boolean") return { range: [-0.12, 1.12], ticks: [{ at: 0, text: "off" }, { at: 1, text: "on" }] };
  let [low, high] = [Infinity, -Infinity];
  for (const { points } of parts) {
    for (const point of points) {
      low = Math.min(low, Number(point.low));
      high = Math.max(high, Number(point.high));
    }
  }
  [low, high] = [Math.max(low, -LARGEST), Math.min(high, LARGEST)];
  const room = (high - low) * ROOM || Math.abs(low) * 0.05 || 1;
  const range = [low - room, high + room];
  return { range, ticks: valueTicks(...range, Math.max(2, Math.floor(px / TICK_PX))) };
}
