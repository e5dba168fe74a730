// A client that is refused before it has a socket: says what it was told, and ends.
// CLIENT: the package; OPTIONS: how it connects.
const client = require(process.env.CLIENT);

const device = (client.io ?? client)(process.env.URL, { reconnection: false, ...JSON.parse(process.env.OPTIONS) });
const say = (event, error) => {
  console.log(JSON.stringify({ event, message: error?.message, body: error?.context?.responseText }));
  process.exit();
};
device.on("connect", () => say("connect"));
device.on("connect_error", (error) => say("connect_error", error));
