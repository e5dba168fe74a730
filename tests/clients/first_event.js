// A client that prints its first event and ends: the error of a refusal, or that it is connected. With `retries` among
// its options it sends a reading, and waits to see whether it is resent.
// CLIENT: the package; OPTIONS: its connection options.
const client = require(process.env.CLIENT);

const device = (client.io ?? client)(process.env.URL, { reconnection: false, ...JSON.parse(process.env.OPTIONS) });
const say = (event, error) => {
  console.log(JSON.stringify({ event, message: error?.message, body: error?.context?.responseText }));
  process.exit();
};
const acknowledged = (error, answer) => setTimeout(() => say("acknowledged", { message: answer?.status }), 5000);
device.on("connect", () => {
  if (device.io.opts.retries) device.emit("reading", { value: 1 }, acknowledged);
  else say("connect");
});
device.on("connect_error", (error) => say("connect_error", error));
