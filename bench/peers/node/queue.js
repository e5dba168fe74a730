// The RabbitMQ connection, shared by the server and the consumer.
const amqp = require("amqplib");

exports.QUEUE = process.env.QUEUE;

exports.openConnection = async () => {
  // amqplib leaves Nagle's algorithm on by default: small messages would wait for the acknowledgement of others.
  const connection = await amqp.connect(process.env.AMQP_URL, { noDelay: true });
  connection.on("close", () => process.exit(1)); // without it nothing is stored, and that must be seen
  return connection;
};

exports.assertQueue = (channel) =>
  channel.assertQueue(exports.QUEUE, { durable: true, arguments: { "x-queue-type": "quorum" } });
