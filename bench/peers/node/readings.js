// The collection of readings, and a reading's document, identical in all systems.
const { Long, MongoBulkWriteError, MongoClient } = require("mongodb");

const DUPLICATE_KEY = 11000;

exports.openReadings = async () => {
  // The same write concern as Tidegate's. The pool has the driver's default of 100 connections.
  const client = new MongoClient(process.env.MONGODB_URL, { writeConcern: { w: "majority", journal: true } });
  await client.connect();
  return client.db(process.env.DATABASE).collection("readings");
};

exports.documentOf = (owner, device, { sensorType, value, ts, seq, unit }, receivedAt) => {
  const _id = { owner, device, sensorType, ts: new Date(ts), seq: Long.fromNumber(seq) };
  const document = { _id, value, receivedAt };
  if (unit !== undefined) document.unit = unit;
  return document;
};

// Treats a duplicate key as success: the reading was sent, or delivered, twice.
exports.exceptDuplicates = (error) => {
  if (error instanceof MongoBulkWriteError) {
    const errors = [error.writeErrors].flat();
    const allStored = errors.length > 0 && errors.every(({ code }) => code === DUPLICATE_KEY);
    if (allStored && !error.result.getWriteConcernError()) return;
  } else if (error.code === DUPLICATE_KEY) return;
  throw error;
};
