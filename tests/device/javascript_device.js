// A device of the JavaScript library, driven by lines of JSON on standard input; prints a line of JSON for each event.
//
// OPTIONS: those of the Device, without `token`. TOKEN: the token, or TOKEN_FILE: a file with the present one. FIRST: the
// value of the first reading; each further one has the next value. SENSOR_TYPE: theirs.
// Values are printed as they are sent: `offered` before, `kept` once `send` has returned, `failed` if it threw.
const fs = require("node:fs");
const readline = require("node:readline");
const { Device } = require("../../device/js");

const { OPTIONS, TOKEN, TOKEN_FILE, FIRST = "0", SENSOR_TYPE = "temperature" } = process.env;
const say = (event, data) => fs.writeSync(1, `${JSON.stringify({ event, data })}\n`);
const errorOf = ({ name, code, message }) => ({ name, code, message });
const token = TOKEN ?? (async () => {
  say("token");
  return fs.readFileSync(TOKEN_FILE, "utf8");
});

let value = Number(FIRST);
let streaming = null;
let ahead = 0;
let later = 0;
const now = Date.now;
const monotonic = performance.now.bind(performance);
Date.now = () => now() + ahead;
performance.now = () => monotonic() + later;

let device;
try {
  device = new Device({ ...JSON.parse(OPTIONS), token });
} catch (error) {
  say("refused", errorOf(error));
  process.exit(4);
}
device.onRejected = (reading, code, detail) => say("rejected", { reading, code, detail });
device.onDropped = (reading) => say("dropped", { reading });

async function send(fields) {
  const mine = value++;
  const reading = { sensorType: SENSOR_TYPE, value: mine, ...fields };
  if (reading.sensorType === null) delete reading.sensorType;
  say("offered", mine);
  try {
    await device.send(reading);
    say("kept", mine);
  } catch (error) {
    say("failed", { value: mine, ...errorOf(error) });
  }
}

const calls = {
  async send({ count = 1, fields = {} }) {
    for (let n = 0; n < count; n++) await send(fields);
  },
  stream({ everyMs }) {
    clearInterval(streaming);
    streaming = everyMs ? setInterval(send, everyMs, {}) : null;
  },
  // The next sync of the buffer fails, as it does once after a disk error.
  failSync() {
    const { fsync } = fs;
    fs.fsync = (fd, done) => {
      fs.fsync = fsync;
      setImmediate(done, Object.assign(new Error("EIO: i/o error, fsync"), { code: "EIO" }));
    };
  },
  clock({ aheadMs }) {
    ahead = aheadMs;
  },
  wait({ ms }) { // as if so much time had passed
    later += ms;
  },
  again: () => new Device({ ...JSON.parse(OPTIONS), token }).close(),
  flush: ({ ms }) => device.flush(ms),
  state: () => ({ pending: device.pending, dropped: device.dropped }),
  // Each is told after some time, or with the first one another reading is sent.
  tellAfter({ ms }) {
    const { onDropped } = device;
    device.onDropped = async (reading) => {
      await new Promise((resolve) => setTimeout(resolve, ms));
      onDropped(reading);
    };
  },
  sendWhenTold() {
    for (const name of ["onDropped", "onRejected"]) {
      const told = device[name];
      let sent = false;
      device[name] = (...values) => {
        told(...values);
        if (sent) return;
        sent = true;
        send({});
      };
    }
  },
  commands() {
    device.onCommand = async ({ name, payload }) => {
      say("command", name);
      if (name === "fail") throw new Error("out of paper");
      if (name === "read") return "й".repeat(payload);
      if (name === "fail_at_length") throw new Error("x".repeat(payload));
      return { name, payload };
    };
  },
  async close() {
    clearInterval(streaming);
    await device.close();
    setImmediate(() => process.exit(0));
  },
};

readline.createInterface({ input: process.stdin }).on("line", async (text) => {
  const { id, call, ...values } = JSON.parse(text);
  try {
    say("answer", { id, result: (await calls[call](values)) ?? null });
  } catch (error) {
    say("answer", { id, error: errorOf(error) });
  }
});
say("ready");
