// Where a series pauses: there is no line across it.
//
// A sensor's rhythm is in its steps. A regular one pauses where a step is several of its usual ones, an irregular one
// where it is many. One that sleeps has two sorts of steps, short ones and, a leap away, long ones: those are its pauses,
// however many there are. A state that is told when it changes lasts until it does: it has pauses only where it is told
// regularly.

const REGULAR = 1.5;
const REGULAR_STEPS = 4;
const IRREGULAR_STEPS = 10;
const LEAP = 8;
// Of two readings alone nobody knows the rhythm; they belong together where they are close in what is shown.
const PART_OF_SPAN = 8;
// A narrower gap cannot be seen. Of what is not regular it would only tear the line into dots.
const LEAST_PX = { regular: 6, irregular: 32 };

// The shortest step that is a pause. points: sorted by t; a bucket's width, the span that is shown, a pixel's time: ms.
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

// The shorter quarter says nothing: among the shortest steps of irregular sensors leaps are by chance.
function leapOf(steps) {
  for (let at = Math.floor((steps.length - 1) / 4) + 1; at < steps.length; at += 1) {
    if (steps[at] >= steps[at - 1] * LEAP) return steps[at];
  }
  return Infinity;
}

// The points in runs without a pause.
export function runs(points, pauseMs) {
  const found = [];
  points.forEach((point, at) => {
    if (at && point.t - points[at - 1].t < pauseMs) found.at(-1).push(point);
    else found.push([point]);
  });
  return found;
}
