// What is shaded in the chart: the times at which alarms were firing, and, below the chart, the same in words.

import * as format from "./format.js";
import { part, showRows } from "./kept-rows.js";
import { set } from "./messages.js";
import { COLOURS, DASHES, severityMark, setSeverity } from "./severity.js";

// Nearer to each other, they are one.
const APART_PX = 2;
const FILL = "20";
const TRIAL_FILL = "10";
const MOST_LISTED = 12;

// The plotly shapes of the spans, in the panels that their series are in. shaded: as AlarmSpans.within returns.
export function shapesOf(panels, shaded, { toMs, pxMs, colour }) {
  return panels.flatMap((panel, at) => {
    const lines = new Set(panel.parts.map(({ line }) => line));
    return shaded
      .filter(({ line }) => lines.has(line))
      .flatMap(({ severity, trial, spans }) =>
        joined(spans, APART_PX * pxMs).map(({ from, to }) => ({
          type: "rect",
          layer: "below",
          xref: "x",
          yref: `y${at ? at + 1 : ""} domain`,
          x0: from,
          x1: Math.min(to, toMs),
          y0: 0,
          y1: 1,
          fillcolor: `${colour(COLOURS[severity])}${trial ? TRIAL_FILL : FILL}`,
          line: { color: colour(COLOURS[severity]), width: 1, dash: DASHES[severity] },
        })),
      );
  });
}

function joined(spans, apart) {
  const found = [];
  for (const { from, to } of [...spans].sort((a, b) => a.from - b.from)) {
    const last = found.at(-1);
    if (last && from - last.to < apart) last.to = Math.max(last.to, to);
    else found.push({ from, to });
  }
  return found;
}

// Those that were firing at a time, in words.
export function namesAt(shaded, ms, labelOf) {
  const at = shaded.filter(({ spans }) => spans.some(({ from, to }) => from <= ms && ms <= to));
  const does = ({ trial }) => (trial ? "Would fire" : "Firing");
  return at.map((one) => `${does(one)}: ${one.name} (${one.severity}), ${labelOf(one.line)}`);
}

// The list below the chart.
export class ShadedList {
  constructor(list, labelOf) {
    Object.assign(this, { list, labelOf });
  }

  draw(shaded) {
    this.list.hidden = !shaded.length;
    const items = shaded.slice(0, MOST_LISTED).map((one, at) => ({ ...one, at: String(at) }));
    showRows(this.list, items, { key: ({ at }) => at, make: makeRow, fill: (row, one) => this.#fill(row, one) });
  }

  #fill({ parts: { mark, text } }, { line, name, severity, trial, spans }) {
    if (mark.dataset.severity !== severity) setSeverity(mark, (mark.dataset.severity = severity));
    const when = spanText(spans.reduce((latest, one) => (one.from > latest.from ? one : latest)));
    const times = spans.length > 1 ? `${format.number(spans.length)} times, the last ${when}` : when;
    set(text, `${trial ? "Trial of " : ""}${name}: ${this.labelOf(line)} · ${line.sensorType}, ${times}`);
  }
}

export function spanText({ from, to }) {
  return to === Infinity ? `since ${format.time(from)}` : format.span(from, to);
}

function makeRow() {
  const row = part("li", "");
  const mark = row.appendChild(severityMark());
  const text = row.appendChild(part("span", ""));
  row.parts = { mark, text };
  return row;
}
