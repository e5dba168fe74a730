// RabbitMQ to MongoDB: collects messages, writes them with one insertMany, then acknowledges them with one frame.
const { QUEUE, assertQueue, openConnection } = require("./queue.js");
const { documentOf, exceptDuplicates, openReadings } = require("./readings.js");

const PREFETCH = 2000; // two batches: one is being written while the next one comes
const BATCH = 1000;
const LINGER_MS = 10;

async function main() {
  const collection = await openReadings();
  const channel = await (await openConnection()).createChannel();
  await assertQueue(channel);
  await channel.prefetch(PREFETCH);
  const gathered = [];
  let timer = null;
  let writing = false;

  // One batch at a time, so that deliveries are in order and `allUpTo` acknowledges nothing that is not stored yet.
  async function write() {
    clearTimeout(timer);
    timer = null;
    writing = true;
    const batch = gathered.splice(0, BATCH);
    await collection.insertMany(batch.map(decode), { ordered: false }).catch(exceptDuplicates);
    channel.ack(batch.at(-1), true);
    writing = false;
    proceed();
  }

  // An error ends the process, and RabbitMQ keeps what was not acknowledged.
  function proceed() {
    if (writing || gathered.length === 0) return;
    if (gathered.length >= BATCH) write();
    else timer ??= setTimeout(write, LINGER_MS);
  }

  await channel.consume(QUEUE, (message) => {
    if (message === null) throw new Error("the queue is gone");
    gathered.push(message);
    proceed();
  });
}

function decode({ content }) {
  const sent = JSON.parse(content);
  return documentOf(sent.owner, sent.device, sent, new Date(sent.receivedAt));
}

process.stdin.on("end", () => process.exit(0)).resume();
main();
