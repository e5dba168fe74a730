#!/usr/bin/env bash
# socket.io-client: the behaviour after a refused connect depends on the client's version.
#
# A Socket.IO server refuses connects with a CONNECT_ERROR packet for its first 3 seconds, from a middleware that is not
# ready yet, and then closes the transport so that refused sockets do not pile up. Clients 3.1.3 and 4.0.0 treat the closed
# transport as a lost connection and reconnect. 4.8.4 treats the packet as final: `active` is false, there is only one
# attempt, and the device stays away although the server is ready a moment later. So no packet means "not now": a server
# that wants every client back refuses the upgrade, or closes the transport without a packet.
#
# Seen with socket.io 4.8.4 and Node.js 20, 10 s:
#   3.1.3 connected    4.0.0 connected    4.8.4 away for good after 1 refusal (active: false)
set -euo pipefail
command -v node >/dev/null && command -v npm >/dev/null || { echo "node and npm are needed"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts \
    socket.io@4.8.4 c313@npm:socket.io-client@3.1.3 c400@npm:socket.io-client@4.0.0 c484@npm:socket.io-client@4.8.4
cat >try.js <<'J'
const { Server } = require("socket.io");

async function seen(name) {
    const io = new Server(0, { serveClient: false });
    const ready = Date.now() + 3000;
    io.use((socket, next) => {
        if (Date.now() >= ready) return next();
        next(new Error("not now"));
        setTimeout(() => socket.conn.close(), 100);
    });
    const port = io.httpServer.address().port;
    const socket = require(name).io(`http://127.0.0.1:${port}`, { transports: ["websocket"] });
    let refusals = 0;
    socket.on("connect_error", () => refusals++);
    const connected = await new Promise((done) => {
        socket.on("connect", () => done(true));
        setTimeout(() => done(false), 10000);
    });
    const active = socket.active;
    socket.disconnect();
    io.close();
    return connected ? "connected" : `away for good after ${refusals} refusal (active: ${active})`;
}

(async () => {
    for (const name of ["c313", "c400", "c484"]) console.log(name, await seen(name));
    process.exit(0);
})();
J
node try.js | tee seen.txt
diff seen.txt - <<'S'
c313 connected
c400 connected
c484 away for good after 1 refusal (active: false)
S
