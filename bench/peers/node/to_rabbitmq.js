// Node.js with RabbitMQ in between: one persistent message per reading, acknowledged to the device once confirmed.
const { once } = require("node:events");
const { serve } = require("./serve.js");
const { QUEUE, assertQueue, openConnection } = require("./queue.js");

async function main() {
  const channel = await (await openConnection()).createConfirmChannel();
  await assertQueue(channel);
  let drained = null; // a promise while the channel's buffer is full

  async function publish(owner, device, reading) {
    const content = Buffer.from(JSON.stringify({ ...reading, owner, device, receivedAt: Date.now() }));
    while (drained) await drained;
    return new Promise((resolve, reject) => {
      const confirmed = (error) => (error ? reject(error) : resolve());
      if (!channel.sendToQueue(QUEUE, content, { persistent: true }, confirmed)) {
        drained ??= once(channel, "drain").finally(() => (drained = null));
      }
    });
  }

  await serve({
    one: publish,
    // All are published concurrently; their confirms arrive together, many in one frame.
    many: (owner, device, readings) => Promise.all(readings.map((reading) => publish(owner, device, reading))),
  });
}

process.stdin.on("end", () => process.exit(0)).resume();
main();
