// Publishes one persistent message per reading; what it returns resolves once the message is confirmed.
const { once } = require("node:events");
const { QUEUE, assertQueue, openConnection } = require("./queue.js");

exports.openPublisher = async () => {
  const channel = await (await openConnection()).createConfirmChannel();
  await assertQueue(channel);
  let drained = null; // a promise while the channel's buffer is full

  return async (owner, device, reading) => {
    const content = Buffer.from(JSON.stringify({ ...reading, owner, device, receivedAt: Date.now() }));
    while (drained) await drained;
    return new Promise((resolve, reject) => {
      const confirmed = (error) => (error ? reject(error) : resolve());
      if (!channel.sendToQueue(QUEUE, content, { persistent: true }, confirmed)) {
        drained ??= once(channel, "drain").finally(() => (drained = null));
      }
    });
  };
};
