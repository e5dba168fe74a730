// The Socket.IO server of both systems: verifies a device's token when it connects, acknowledges what is safe.
const { createServer } = require("node:http");
const { importSPKI, jwtVerify } = require("jose");
const { Server } = require("socket.io");

// `one(owner, device, reading)` and `many(owner, device, readings)` return promises that resolve once the data is safe.
exports.serve = async ({ one, many }) => {
  const key = await importSPKI(process.env.PUBLIC_KEY_PEM, "EdDSA"); // once, not at every connection
  const claims = { algorithms: ["EdDSA"], issuer: process.env.TOKEN_ISSUER, audience: "tidegate" };
  const server = createServer();
  // Socket.IO's defaults: no compression, and a ping every 25 s. The load uses WebSocket only.
  const io = new Server(server, { transports: ["websocket"], serveClient: false });

  io.use(async (socket, next) => {
    try {
      const { payload } = await jwtVerify(socket.handshake.auth.token, key, claims);
      socket.data = { owner: payload.owner, device: payload.device };
      next();
    } catch {
      next(new Error("authentication failed"));
    }
  });

  // Readings are not validated and rates not limited, which saves this system some work.
  io.on("connection", (socket) => {
    const { owner, device } = socket.data;
    socket.on("reading", (reading, acknowledge) => settle(one(owner, device, reading), 1, acknowledge));
    socket.on("readings", (readings, acknowledge) =>
      settle(many(owner, device, readings), readings.length, acknowledge),
    );
  });

  server.listen(Number(process.env.PORT), "127.0.0.1", 4096);
};

async function settle(stored, accepted, acknowledge) {
  try {
    await stored;
    acknowledge({ status: "accepted", accepted });
  } catch (error) {
    console.error(error);
    acknowledge({ status: "failed" }); // what is not safe is never acknowledged
  }
}
