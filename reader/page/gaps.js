// Detects pauses in a series, and readings that are missing by their `seq`, where the line is interrupted.
//
// A sensor's rhythm shows in its steps, the times between readings. A regular sensor pauses where a step is several
// times the usual one, an irregular one where it is many times. A sensor that sleeps has short steps and much longer
// ones, which are its pauses, however many. A state sent on change lasts until the next change: it has pauses only if
// it is sent regularly.

const REGULAR = 1.5;
const REGULAR_STEPS = 4;
const IRREGULAR_STEPS = 10;
const LEAP = 8;
// Two readings have no rhythm; they are joined if close relative to the time range shown.
const PART_OF_SPAN = 8;
// Narrower gaps are invisible; in an irregular series they would only break the line into dots.
const LEAST_PX = { regular: 6, irregular: 32 };

// The shortest step that is a pause, in ms. points: sorted by t; everyMs: bucket width; spanMs: range shown; pxMs: ms
// per pixel; lasting: a value holds until the next.
export function pauseOf(points, { everyMs = 0, spanMs, pxMs, lasting = false }) {
  const steps = [];
  for (let at = 1; at < points.length; at += 1) {
    if (points[at].t > points[at - 1].t) steps.push(points[at].t - points[at - 1].t);
  }
  if (!steps.length) return Infinity;
  if (steps.length === 1) return lasting ? Infinity : Math.max(spanMs / PART_OF_SPAN, everyMs * REGULAR_STEPS);
  steps.sort((a, b) => a - b);
  const [low, usual, high] = [0.25, 0.5, 0.75].map((part) => steps[Math.floor((steps.length - 1) * part)]);
  const regular = high <= usual * REGULAR && low >= usual / REGULAR;
  if (lasting && !regular) return Infinity;
  const rhythm = regular ? usual * REGULAR_STEPS : Math.min(usual * IRREGULAR_STEPS, leapOf(steps));
  return Math.max(rhythm, everyMs * REGULAR_STEPS, LEAST_PX[regular ? "regular" : "irregular"] * pxMs);
}

// The shortest quarter is skipped: among the shortest steps of irregular sensors, leaps occur by chance.
function leapOf(steps) {
  for (let at = Math.floor((steps.length - 1) / 4) + 1; at < steps.length; at += 1) {
    if (steps[at] >= steps[at - 1] * LEAP) return steps[at];
  }
  return Infinity;
}

// As in `GET /devices/{id}/gaps`: seq counts readings where 9 of 10 neighbours differ by one, and is random from 2^52 on.
const NUMBERED = 0.9;
const COUNTED_BELOW = 2 ** 52;

// The readings, sorted, that follow missing ones. Up to `knownTo` all that are stored are known. A number that is
// further on is only late.
export function afterMissing(readings, knownTo = Infinity) {
  const counted = readings.filter(({ seq }) => seq < COUNTED_BELOW);
  const pairs = counted.slice(1).map((reading, at) => [counted[at], reading]);
  const following = pairs.filter(([before, { seq }]) => seq === before.seq + 1).length;
  if (!pairs.length || following < pairs.length * NUMBERED) return new Set();
  const seqs = new Set(counted.map(({ seq }) => seq));
  const missing = pairs.filter(([before, { seq, t }]) => t <= knownTo && seq > before.seq + 1 && !seqs.has(before.seq + 1));
  return new Set(missing.map(([, reading]) => reading));
}

// Whether nothing is drawn between two points.
export function apart(before, point, pauseMs) {
  return Boolean(point.missing) || point.t - before.t >= pauseMs;
}

// Split the points into runs without a pause or missing readings.
export function runs(points, pauseMs) {
  const found = [];
  points.forEach((point, at) => {
    if (at && !apart(points[at - 1], point, pauseMs)) found.at(-1).push(point);
    else found.push([point]);
  });
  return found;
}
