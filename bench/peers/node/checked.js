// The gateway's work in Node.js: verifies tokens, checks every reading, publishes it, acknowledges it once confirmed.
const { openPublisher } = require("./publisher.js");
const { serve } = require("./serve.js");

// Characters and bounds are those of docs/protocol.md.
const SENSOR_TYPE = /^[A-Za-z0-9_.-]{1,64}$/;
const MAX_TEXT = 256;
const MAX_UNIT = 32;
const PAST_MS = 10 * 366 * 86_400_000;
const AHEAD_MS = 86_400_000;

function check({ sensorType, value, ts, seq, unit, location }, now) {
  const isValue = typeof value === "number" || typeof value === "boolean" || isText(value, MAX_TEXT);
  const isTime = Number.isSafeInteger(ts) && ts > now - PAST_MS && ts < now + AHEAD_MS;
  const isPlace = location === undefined || typeof location === "object" || isText(location, MAX_TEXT);
  const isUnit = unit === undefined || isText(unit, MAX_UNIT);
  if (!(SENSOR_TYPE.test(sensorType) && isValue && isTime && Number.isSafeInteger(seq) && seq >= 0 && isPlace && isUnit)) {
    throw new TypeError("not a reading");
  }
}

const isText = (text, most) => typeof text === "string" && text.length <= most;

async function main() {
  const publish = await openPublisher();
  await serve({
    one: async (owner, device, reading) => {
      check(reading, Date.now());
      await publish(owner, device, reading);
    },
    many: async (owner, device, readings) => {
      const now = Date.now();
      for (const reading of readings) check(reading, now);
      await Promise.all(readings.map((reading) => publish(owner, device, reading)));
    },
  });
}

process.stdin.on("end", () => process.exit(0)).resume();
main();
