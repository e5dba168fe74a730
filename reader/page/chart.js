// The chart: stacked panels with a shared time axis, drawn by plotly.
//
// The time axis is in milliseconds since 1970, UTC, and never runs backwards; its tick labels are formatted here, in
// the selected time zone, and so are those of the value axes: plotly chooses nothing.

/* global Plotly */

import { Hover } from "./hover.js";
import { pauseOf } from "./gaps.js";
import { panelsOf } from "./panels.js";
import { shapesOf } from "./shading.js";
import { timeTicks } from "./ticks.js";
import { plain, StateColours, tracesOf } from "./traces.js";

// The height of the window not available to the panels.
const AROUND_PX = 420;
const MARGIN = { l: 52, r: 12, t: 4, b: 40 };
const TITLE_PX = 24;
const BETWEEN_PX = 8;
const LEAST_PX = 300;
const TIME_PX = { plain: 80, offset: 120 };
// The largest share of the width for value labels.
const WIDEST_LABEL = 0.4;
const FONT_PX = 12;
// Labels are fitted here. Plotly would measure all labels for each one it places, and cache the size of every text at
// every position, while the ticks of a live axis move with every drawing.
const UNMEASURED = { ticklabeloverflow: "allow" };
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false, showTips: false, scrollZoom: false };

export class Chart {
  constructor(element, { onZoom, onReset, labelOf }) {
    this.element = element;
    this.labelOf = labelOf;
    this.onZoom = onZoom;
    this.onReset = onReset;
    this.drawn = false;
    this.states = new StateColours();
    this.measure = document.createElement("canvas").getContext("2d");
    this.hover = new Hover(element, labelOf);
    this.dragging = false;
    element.addEventListener("pointerdown", () => (this.dragging = true));
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => (this.dragging = false));
  }

  get width() {
    return Math.max(200, this.element.clientWidth - MARGIN.l - MARGIN.r);
  }

  // parts: as in parts.js; shaded: as in alarm-spans.js; spanMs: the time range shown, or to be shown once filled; zone:
  // of the labels.
  // The chart is not redrawn while the user drags over it.
  draw(parts, { fromMs, toMs, spanMs, zone, shaded = [] }) {
    if (this.dragging) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const family = getComputedStyle(document.body).fontFamily;
    this.measure.font = `${FONT_PX}px ${family}`;
    const panels = panelsOf(parts, this.labelOf, innerHeight - AROUND_PX);
    const margin = { ...MARGIN, l: this.#left(panels) };
    const width = Math.max(100, this.element.clientWidth - margin.l - margin.r);
    const pxMs = (toMs - fromMs) / width;
    for (const part of parts) {
      part.pauseMs = pauseOf(part.points, { everyMs: part.everyMs, spanMs, pxMs, lasting: part.kind !== "number" });
    }
    const traces = panels.flatMap((panel, at) =>
      panel.parts.flatMap((part) =>
        tracesOf(part, {
          panel: at + 1,
          label: this.labelOf(part.line),
          colour: colour(`c${part.line.number}`),
          pxMs,
          toMs,
          stateColour: (text) => colour(`c${this.states.of(text)}`),
          textColour: colour("text"),
        }),
      ),
    );
    const layout = this.#layout(panels, { fromMs, toMs, zone, margin, width, colour, family });
    layout.shapes = shapesOf(panels, shaded, { toMs, pxMs, colour });
    Plotly.react(this.element, traces, layout, CONFIG);
    this.hover.update(panels, { fromMs, toMs, zone, margin, width, pxMs, height: layout.height, shaded });
    if (!this.drawn) this.#listen();
  }

  #listen() {
    this.drawn = true;
    this.element.on("plotly_relayout", (change) => {
      const [from, to] = change["xaxis.range"] ?? [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (from !== undefined && to !== undefined) this.onZoom(Number(from), Number(to));
    });
    this.element.on("plotly_doubleclick", () => this.onReset());
  }

  // The left margin, wide enough for the longest label.
  #left(panels) {
    const widths = panels.flatMap((panel) => panel.ticks.map(({ text }) => this.measure.measureText(text).width));
    const most = this.element.clientWidth * WIDEST_LABEL;
    return Math.ceil(Math.min(most, Math.max(MARGIN.l, ...widths.map((px) => px + 12))));
  }

  #layout(panels, { fromMs, toMs, zone, margin, width, colour, family }) {
    const [muted, grid] = [colour("muted"), colour("grid")];
    const used = panels.reduce((sum, { px }) => sum + px, 0);
    const height = Math.max(panels.length ? 0 : LEAST_PX, used);
    const layout = {
      height: height + margin.t + margin.b,
      margin,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family, size: FONT_PX, color: muted },
      hovermode: false,
      dragmode: "zoom",
      selectdirection: "h",
      showlegend: false,
      barmode: "overlay",
      uniformtext: { mode: "hide", minsize: FONT_PX },
      xaxis: {
        type: "linear",
        range: [fromMs, toMs],
        gridcolor: grid,
        linecolor: grid,
        zeroline: false,
        anchor: `y${panels.length > 1 ? panels.length : ""}`,
        tickangle: 0,
        ...UNMEASURED,
        ...this.#timeAxis(fromMs, toMs, zone, { margin, width }),
      },
      yaxis: { visible: false, fixedrange: true, range: [0, 1] },
      annotations: [],
    };
    let top = height;
    panels.forEach((panel, at) => {
      const bottom = top - panel.px;
      layout[`yaxis${at ? at + 1 : ""}`] = {
        type: "linear",
        domain: [(bottom + (at + 1 < panels.length ? BETWEEN_PX : 0)) / height, (top - TITLE_PX) / height],
        range: panel.range,
        gridcolor: grid,
        zeroline: false,
        fixedrange: true,
        ...UNMEASURED,
        tickmode: "array",
        tickvals: panel.ticks.map((tick) => tick.at),
        ticktext: panel.ticks.map((tick) => plain(this.#fitting(tick.text, margin.l - 8))),
      };
      layout.annotations.push({
        text: plain(this.#fitting(panel.title, width - 8)),
        xref: "paper",
        yref: "paper",
        x: 0,
        y: top / height,
        xanchor: "left",
        yanchor: "top",
        showarrow: false,
        font: { size: FONT_PX, color: colour("text") },
      });
      top = bottom;
    });
    return layout;
  }

  #timeAxis(fromMs, toMs, zone, { margin, width }) {
    const turns = zone.offset(fromMs) !== zone.offset(toMs);
    const wanted = Math.max(1, width / (turns ? TIME_PX.offset : TIME_PX.plain));
    const ticks = timeTicks(fromMs, toMs, wanted, zone).filter(({ at, text, day }) => {
      const half = Math.max(...[text, day].map((one) => this.measure.measureText(one).width)) / 2;
      const px = ((at - fromMs) / (toMs - fromMs)) * width;
      return margin.l + px >= half && width - px + margin.r >= half;
    });
    return {
      tickmode: "array",
      tickvals: ticks.map((tick) => tick.at),
      ticktext: ticks.map(({ text, day }) => plain(text) + (day ? `<br>${plain(day)}` : "")),
    };
  }

  // A text shortened in the middle to fit a width.
  #fitting(text, px) {
    if (this.measure.measureText(text).width <= px) return text;
    const signs = [...text];
    for (let kept = signs.length - 1; kept > 2; kept -= 1) {
      const head = Math.ceil(kept / 2);
      const shorter = `${signs.slice(0, head).join("")}…${signs.slice(head - kept).join("")}`;
      if (this.measure.measureText(shorter).width <= px) return shorter;
    }
    return "…";
  }
}
