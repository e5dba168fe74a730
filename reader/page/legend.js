// The table below the chart: a row of statistics for each kind of value of each series.

import * as format from "./format.js";
import { statisticsOf } from "./parts.js";

const MOST_STATES = 4;

export class Legend {
  // stateColour(text): the number of a state's colour
  constructor(body, labelOf, stateColour) {
    this.body = body;
    this.stateColour = stateColour;
    this.labelOf = labelOf;
  }

  // parts: as in parts.js; a line without parts gets an empty row.
  draw(lines, parts) {
    const rows = lines.flatMap((line) => {
      const own = parts.filter((part) => part.line === line);
      return own.length ? own.map((part) => this.#cells(part)) : [this.#empty(line)];
    });
    while (this.body.rows.length > rows.length) this.body.deleteRow(-1);
    rows.forEach((cells, at) => fill(this.body.rows[at] ?? emptyRow(this.body), cells));
  }

  #name(line) {
    return { colour: line.number, name: `${this.labelOf(line)} · ${line.sensorType}` };
  }

  #empty(line) {
    return { ...this.#name(line), latest: "–", figures: ["–", "–", "–"], at: "–" };
  }

  #cells(part) {
    const stats = statisticsOf(part);
    const row = { ...this.#name(part.line), latest: format.value(stats.latest, part.unit), at: format.time(stats.at) };
    if (part.kind === "number") return { ...row, figures: [stats.low, stats.mean, stats.high] };
    if (part.kind === "boolean") return { ...row, figures: [`on in ${stats.on} of the readings`] };
    const states = stats.states.slice(0, MOST_STATES).map(([text, share]) => ({ colour: this.stateColour(text), text: `${text} ${share}` }));
    const others = stats.states.length - states.length;
    return { ...row, states, figures: [others ? `${others} more` : ""] };
  }
}

function fill(row, { colour, name, latest, figures, states = [], at }) {
  const key = row.cells[0].firstChild;
  key.className = `key key-${colour}`;
  key.nextSibling.textContent = name;
  const [, latestCell, low, mean, high, atCell] = row.cells;
  latestCell.textContent = latest;
  atCell.textContent = at;
  const single = figures.length === 1;
  low.colSpan = single ? 3 : 1;
  low.className = single ? "said" : "";
  mean.hidden = high.hidden = single;
  low.replaceChildren(...states.map(stateKey), figures[0]);
  if (!single) [mean.textContent, high.textContent] = figures.slice(1);
}

function stateKey({ colour, text }) {
  const made = document.createElement("span");
  made.className = "state";
  const key = made.appendChild(document.createElement("span"));
  key.className = `key key-${colour}`;
  made.append(text);
  return made;
}

function emptyRow(body) {
  const row = body.insertRow();
  const head = row.appendChild(document.createElement("th"));
  head.scope = "row";
  head.append(document.createElement("span"), document.createElement("span"));
  for (let cell = 0; cell < 5; cell += 1) row.insertCell();
  return row;
}
