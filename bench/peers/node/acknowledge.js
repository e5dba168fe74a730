// A stock Socket.IO server that only acknowledges. Ends when its standard input ends.
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const server = createServer();
const io = new Server(server, { transports: ["websocket"], serveClient: false });

io.on("connection", (socket) => {
  socket.on("reading", (_, acknowledge) => acknowledge({ status: "accepted", accepted: 1 }));
  socket.on("readings", (readings, acknowledge) => acknowledge({ status: "accepted", accepted: readings.length }));
});

server.listen(Number(process.env.PORT), "127.0.0.1", 4096);
process.stdin.on("end", () => process.exit(0)).resume();
