// Code to paste that lets a device send, with URL and token filled in: shorter versions of README's examples, which
// also renew their token. A device that is rejected temporarily or disconnected reconnects by itself.

const curl = (url, token) => `curl -sS '${url}/readings' -H 'Content-Type: application/json' \\
  -H 'Authorization: Bearer ${token}' \\
  -d '{"value": 20.5, "unit": "C"}'
`;

const python = (url, token) => `# pip install "python-socketio[asyncio-client]"
import asyncio, time
import socketio

URL = ${JSON.stringify(url)}
TOKEN = ${JSON.stringify(token)}


async def main():
    device = socketio.AsyncClient()
    device.on("connect_error", lambda error: print("not connected:", error, flush=True))
    await device.connect(URL, auth={"token": TOKEN}, transports=["websocket"], retry=True)
    while True:
        reading = {"value": 20.5, "unit": "C", "ts": int(time.time() * 1000)}
        while not await taken(device, reading):  # the same again: it is stored once
            await asyncio.sleep(1)
        await asyncio.sleep(1)


async def taken(device, reading):
    try:
        answer = await device.call("reading", reading, timeout=10)
    except socketio.exceptions.SocketIOError:
        return False  # no connection just now; the client comes back by itself
    print(answer, flush=True)
    return answer["status"] != "retry"


asyncio.run(main())
`;

const javascript = (url, token) => `// npm install socket.io-client
const { io } = require("socket.io-client");

const URL = ${JSON.stringify(url)};
const TOKEN = ${JSON.stringify(token)};
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const device = io(URL, { auth: { token: TOKEN }, transports: ["websocket"] });
device.on("connect_error", (error) => console.error(device.active ? "not now" : "refused:", error.data?.code ?? ""));

async function send(reading) {
  for (;;) {
    try {
      const answer = await device.timeout(10000).emitWithAck("reading", reading);
      if (answer.status !== "retry") return answer;
    } catch {} // no connection just now; the client comes back by itself
    await pause(1000); // then the same again: it is stored once
  }
}

(async () => {
  for (;;) {
    console.log(await send({ value: 20.5, unit: "C", ts: Date.now() }));
    await pause(1000);
  }
})();
`;

export const SNIPPETS = { curl, python, javascript };
