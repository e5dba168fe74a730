// Node.js with RabbitMQ in between: one persistent message per reading, acknowledged to the device once confirmed.
const { openPublisher } = require("./publisher.js");
const { serve } = require("./serve.js");

async function main() {
  const publish = await openPublisher();
  await serve({
    one: publish,
    // All are published concurrently; their confirms arrive together, many in one frame.
    many: (owner, device, readings) => Promise.all(readings.map((reading) => publish(owner, device, reading))),
  });
}

process.stdin.on("end", () => process.exit(0)).resume();
main();
