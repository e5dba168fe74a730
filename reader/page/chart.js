// The chart: a panel for each sensorType, one above the other over the same time, drawn by plotly.

/* global Plotly */

// As high as the window has room for, beside what stands above and below.
const PANEL_PX = [150, 320];
const AROUND_PX = 420;
const MARGIN = { l: 52, r: 12, t: 4, b: 36 };
const TITLE_PX = 24;
const TICK_PX = 110;
const COLOURS = 8;
// Readings that are further apart are shown as points, too.
const MARKER_PX = 12;

// Plotly reads a little markup in texts; nothing from a reading may become any.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

export class Chart {
  constructor(element, { onZoom, onReset }) {
    this.element = element;
    this.drawn = false;
    this.onZoom = onZoom;
    this.onReset = onReset;
  }

  get width() {
    return Math.max(200, this.element.clientWidth - MARGIN.l - MARGIN.r);
  }

  // lines: [{label, sensorType, unit, colour, points, everyMs}]
  draw(lines, fromMs, toMs) {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    const panels = [...new Set(lines.map((line) => line.sensorType))];
    const pxOf = (ms) => (ms / (toMs - fromMs)) * this.width;
    const traces = lines.flatMap((line) => {
      const sparse = pxOf(line.points.at(-1)?.t - line.points[0]?.t) > MARKER_PX * line.points.length;
      return traceOf({ ...line, sparse }, panels.indexOf(line.sensorType) + 1, of(`--c${line.colour}`));
    });
    const layout = layoutOf(panels, lines, fromMs, toMs, of, this.width);
    const config = { displayModeBar: false, responsive: true, doubleClick: false, showTips: false, scrollZoom: false };
    Plotly.react(this.element, traces, layout, config);
    if (!this.drawn) {
      this.drawn = true;
      this.element.on("plotly_relayout", (change) => this.#relayout(change));
      this.element.on("plotly_doubleclick", () => this.onReset());
    }
  }

  #relayout(change) {
    const name = Object.keys(change).find((key) => /^xaxis\d*\.range(\[0\])?$/.test(key));
    if (name === undefined) return;
    const axis = name.split(".")[0];
    const [from, to] = change[`${axis}.range`] ?? [change[`${axis}.range[0]`], change[`${axis}.range[1]`]];
    this.onZoom(millis(from), millis(to));
  }
}

// Plotly is given and gives local times as text without a zone.
const millis = (text) => (typeof text === "number" ? text : new Date(String(text).replace(" ", "T")).getTime());
const pad = (number, size = 2) => String(number).padStart(size, "0");

function local(ms) {
  const at = new Date(ms);
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  return `${day}T${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

function traceOf(line, panel, colour) {
  const axis = panel === 1 ? "" : panel;
  const place = { xaxis: "x", yaxis: `y${axis}`, type: "scatter", showlegend: false };
  const points = withGaps(line);
  const x = points.map((point) => (point.t === null ? null : local(point.t)));
  const traces = [];
  if (line.everyMs) {
    const edge = { ...place, mode: "lines", line: { width: 0 }, hoverinfo: "skip", x };
    traces.push({ ...edge, y: points.map((point) => point.max ?? null) });
    traces.push({ ...edge, y: points.map((point) => point.min ?? null), fill: "tonexty", fillcolor: faded(colour) });
  }
  const texts = line.points.some((point) => typeof point.v === "string");
  traces.push({
    ...place,
    x,
    y: points.map((point) => point.v ?? null),
    mode: texts ? "markers" : line.sparse ? "lines+markers" : "lines",
    line: { color: colour, width: 1.8, shape: "linear" },
    marker: { color: colour, size: 4 },
    connectgaps: false,
    name: plain(line.label),
    hovertemplate: `%{y}${line.unit ? ` ${plain(line.unit)}` : ""}<extra>${plain(line.label)}</extra>`,
  });
  return traces;
}

// A pause of more than a few times the usual distance is shown as a gap, not as a line across.
function withGaps({ points, everyMs }) {
  if (points.length < 3) return points;
  const steps = points.slice(1).map((point, at) => point.t - points[at].t).sort((a, b) => a - b);
  const usual = Math.max(everyMs, steps[Math.floor(steps.length * 0.9)]);
  const found = [points[0]];
  for (let at = 1; at < points.length; at += 1) {
    if (points[at].t - points[at - 1].t > usual * 4) found.push({ t: points[at - 1].t + 1 });
    found.push(points[at]);
  }
  return found;
}

function layoutOf(panels, lines, fromMs, endMs, of, width) {
  const text = of("--muted");
  const grid = of("--grid");
  const count = Math.max(1, panels.length);
  const panelPx = Math.min(PANEL_PX[1], Math.max(PANEL_PX[0], (innerHeight - AROUND_PX) / count));
  const height = Math.max(300, count * panelPx);
  const title = TITLE_PX / height;
  const layout = {
    height: height + MARGIN.t + MARGIN.b,
    margin: MARGIN,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: text },
    hovermode: "x unified",
    hoverlabel: { bgcolor: of("--card"), bordercolor: of("--line"), font: { color: of("--text") } },
    dragmode: "zoom",
    selectdirection: "h",
    showlegend: false,
    xaxis: {
      type: "date",
      range: [local(fromMs), local(endMs)],
      gridcolor: grid,
      linecolor: grid,
      zeroline: false,
      anchor: `y${count === 1 ? "" : count}`,
      hoverformat: "%x %X",
      tickangle: 0,
      nticks: Math.max(3, Math.round(width / TICK_PX)),
    },
    annotations: [],
  };
  panels.forEach((sensorType, at) => {
    const top = 1 - at / count;
    const bottom = 1 - (at + 1) / count;
    const unit = lines.find((line) => line.sensorType === sensorType && line.unit)?.unit;
    layout[`yaxis${at ? at + 1 : ""}`] = {
      domain: [bottom + (at + 1 < count ? 6 / height : 0), top - title],
      gridcolor: grid,
      zeroline: false,
      fixedrange: true,
      automargin: false,
      nticks: 6,
    };
    layout.annotations.push({
      text: plain(unit ? `${sensorType} (${unit})` : sensorType),
      xref: "paper",
      yref: "paper",
      x: 0,
      y: top,
      xanchor: "left",
      yanchor: "top",
      showarrow: false,
      font: { size: 12.5, color: of("--text") },
    });
  });
  return layout;
}

function faded(colour) {
  return `${colour}33`;
}

export function colourOf(number) {
  return number % COLOURS;
}
