// The plotly traces of the parts of a series. Texts are escaped: plotly interprets some markup.

import { apart, runs } from "./gaps.js";

// Readings further apart are also drawn as points.
const MARKER_PX = 12;
const STATE_COLOURS = 8;
// The least width of a state, so that a single reading is visible.
const LEAST_STATE_PX = 5;

export const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

// part: as in parts.js, with pauseMs; panel: its number, from 1; toMs: the end of the range shown.
export function tracesOf(part, { panel, label, colour, pxMs, toMs, stateColour, textColour }) {
  const place = { type: "scatter", xaxis: "x", yaxis: `y${panel === 1 ? "" : panel}`, showlegend: false, hoverinfo: "skip" };
  const stretches = runs(part.points, part.pauseMs);
  const named = { ...place, name: plain(label) };
  if (part.kind === "number") return numbers(part, stretches, named, place, colour, pxMs);
  if (part.kind === "boolean") return booleans(part, stretches, named, place, colour);
  return [band(part, stretches, named, { pxMs, toMs, stateColour, textColour })];
}

function numbers({ points, everyMs }, stretches, named, place, colour, pxMs) {
  const traces = [];
  if (everyMs) traces.push({ ...place, ...areaOf(stretches.map((run) => rangeOf(run, everyMs)), colour) });
  const sparse = (points.at(-1).t - points[0].t) / pxMs > MARKER_PX * points.length;
  traces.push({
    ...named,
    ...joined(stretches, (point) => [[point.t, Number(point.v)]]),
    mode: sparse ? "lines+markers" : "lines",
    line: { color: colour, width: 1.8, shape: "linear" },
    marker: { color: colour, size: 5 },
    connectgaps: false,
  });
  if (!sparse) traces.push(...alone(stretches, place, colour, (point) => Number(point.v)));
  return traces;
}

function rangeOf(run, everyMs) {
  const [first, last] = [run[0], run.at(-1)];
  const half = everyMs / 2;
  const up = [[first.t - half, Number(first.high)], ...run.map((one) => [one.t, Number(one.high)]), [last.t + half, Number(last.high)]];
  const down = [[first.t - half, Number(first.low)], ...run.map((one) => [one.t, Number(one.low)]), [last.t + half, Number(last.low)]];
  return [...up, ...down.reverse()];
}

// Steps at 0 and 1; below them, the share of readings that were on.
function booleans({ everyMs }, stretches, named, place, colour) {
  return [
    { ...place, ...areaOf(stretches.map((run) => sharesOf(run, everyMs)), colour) },
    {
      ...named,
      ...joined(stretches, (point) => [[point.t, Number(point.v)]]),
      mode: "lines",
      line: { color: colour, width: 1.8, shape: "hv" },
      connectgaps: false,
    },
    ...alone(stretches, place, colour, (point) => Number(point.v)),
  ];
}

function sharesOf(run, everyMs) {
  const found = [[run[0].t, 0]];
  run.forEach((point, at) => {
    const end = run[at + 1]?.t ?? point.t + everyMs;
    found.push([point.t, point.on / point.count], [end, point.on / point.count]);
  });
  found.push([found.at(-1)[0], 0]);
  return found;
}

// A closed area for each run, so that none spans a pause.
function areaOf(outlines, colour) {
  const x = [];
  const y = [];
  for (const outline of outlines) {
    if (x.length) {
      x.push(null);
      y.push(null);
    }
    for (const [at, height] of outline) {
      x.push(at);
      y.push(height);
    }
  }
  return { x, y, mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: `${colour}33` };
}

function joined(stretches, of) {
  const x = [];
  const y = [];
  for (const run of stretches) {
    if (x.length) {
      x.push(x.at(-1));
      y.push(null);
    }
    for (const point of run) {
      for (const [at, height] of of(point)) {
        x.push(at);
        y.push(height);
      }
    }
  }
  return { x, y };
}

// A reading between two pauses has no line; draw a marker.
function alone(stretches, place, colour, height) {
  const points = stretches.filter((run) => run.length === 1).map(([point]) => point);
  if (!points.length) return [];
  const found = { x: points.map((point) => point.t), y: points.map(height) };
  return [{ ...place, ...found, mode: "markers", marker: { color: colour, size: 5 } }];
}

// A state lasts until the next reading, or until the pause.
export function statesOf({ points, everyMs, pauseMs }, pxMs, toMs) {
  const least = LEAST_STATE_PX * pxMs;
  const states = [];
  points.forEach((point, at) => {
    const next = points[at + 1];
    const paused = !next || apart(point, next, pauseMs);
    const usual = everyMs || (at ? Math.min(point.t - points[at - 1].t, pauseMs) : 0);
    const end = paused ? Math.max(point.t + least, Math.min(point.t + usual, next?.t ?? toMs)) : next.t;
    const before = states.at(-1);
    if (before?.v === point.v && before.end >= point.t) before.end = end;
    else states.push({ v: point.v, t: point.t, end });
  });
  return states;
}

function band(part, stretches, named, { pxMs, toMs, stateColour, textColour }) {
  const states = statesOf(part, pxMs, toMs);
  return {
    ...named,
    type: "bar",
    orientation: "h",
    base: states.map((state) => state.t),
    x: states.map((state) => state.end - state.t),
    y: states.map(() => 0.5),
    width: 0.9,
    text: states.map((state) => plain(state.v)),
    textposition: "inside",
    insidetextanchor: "start",
    textangle: 0,
    insidetextfont: { color: textColour, size: 12 },
    marker: { color: states.map((state) => `${stateColour(state.v)}66`), line: { width: 1, color: states.map((state) => stateColour(state.v)) } },
    cliponaxis: true,
  };
}

// Assigns each state a colour, the same in every band, in order of appearance.
export class StateColours {
  constructor() {
    this.numbers = new Map();
  }

  of(text) {
    if (!this.numbers.has(text)) {
      if (this.numbers.size > 1000) this.numbers.clear();
      this.numbers.set(text, this.numbers.size % STATE_COLOURS);
    }
    return this.numbers.get(text);
  }
}
