// Node.js, directly to MongoDB: each event is one write, acknowledged once the majority has it in its journal.
const { serve } = require("./serve.js");
const { documentOf, exceptDuplicates, openReadings } = require("./readings.js");

async function main() {
  const collection = await openReadings();
  await serve({
    one: (owner, device, reading) =>
      collection.insertOne(documentOf(owner, device, reading, new Date())).catch(exceptDuplicates),
    // One command for the whole array; unordered, so that mongod need not stop at a duplicate.
    many: (owner, device, readings) => {
      const now = new Date();
      const documents = readings.map((reading) => documentOf(owner, device, reading, now));
      return collection.insertMany(documents, { ordered: false }).catch(exceptDuplicates);
    },
  });
}

process.stdin.on("end", () => process.exit(0)).resume();
main();
