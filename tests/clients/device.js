// A device that streams, renews its token once, lets the next one expire, and reconnects; prints one JSON line per event.
// TOKENS: an object with the tokens of the first connection, of the renewal, and of the reconnection.
// It ends after 20 acknowledgements on the last of CONNECTIONS connections.
const { io } = require("socket.io-client");

const tokens = JSON.parse(process.env.TOKENS);
const connections = Number(process.env.CONNECTIONS);
const say = (event, data) => console.log(JSON.stringify({ event, data }));
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

let connected = 0;
let renewed = false;
let seq = 0;
let acknowledged = [];

const device = io(process.env.URL, {
  auth: (give) => give({ token: connected ? tokens.fresh : tokens.first }),
  transports: ["websocket"],
  reconnectionDelay: 100,
  reconnectionDelayMax: 300,
});
device.on("connect", () => {
  connected += 1;
  say("connect", connected);
  stream(connected);
});
device.on("connect_error", (error) => say("connect_error", error.data ?? error.message));
device.on("disconnect", (reason) => say("disconnect", reason));
device.on("auth_expired", () => say("auth_expired"));
device.on("auth_expiring", async (data) => {
  say("auth_expiring", data);
  if (!renewed && tokens.renewal) {
    renewed = true;
    say("renewed", await device.emitWithAck("authenticate", { token: tokens.renewal }));
  }
});

async function stream(connection) {
  let here = 0;
  while (connection === connected && device.connected) {
    const number = seq++;
    try {
      const reading = { value: number, ts: 1750000000000 + number };
      const answer = await device.timeout(3000).emitWithAck("reading", reading);
      if (answer.status === "accepted") {
        acknowledged.push(number);
        here += 1;
      }
    } catch {
      // lost with its connection, so not acknowledged
    }
    if (connected === connections && here === 20) {
      say("acknowledged", acknowledged);
      device.close();
      return;
    }
    await pause(20);
  }
}

setTimeout(() => process.exit(3), 40000).unref();
