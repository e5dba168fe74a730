// Devices that stream until they are stopped, with only the client's own reconnection.
// CLIENT: the package; TOKEN: what they connect with; AUTH_TAKES_MS: the delay of `auth`; DEVICES: their number.
// Prints one JSON line per event: the device and the event.
const { io } = require(process.env.CLIENT);

const takesMs = Number(process.env.AUTH_TAKES_MS);
const say = (device, event, data) => console.log(JSON.stringify({ device, event, data }));
let ts = 1750000000000;

for (let number = 0; number < Number(process.env.DEVICES); number++) {
  const device = io(process.env.URL, {
    auth: (give) => setTimeout(() => give({ token: process.env.TOKEN }), takesMs),
    transports: ["websocket"],
    forceNew: true,
  });
  device.on("connect_error", (error) => say(number, "connect_error", error.data ?? error.message));
  device.on("disconnect", (reason) => say(number, "disconnect", reason));
  device.on("connect", () => {
    say(number, "connect");
    const session = device.id;
    const send = () => {
      if (!device.connected || device.id !== session) return;
      device.emit("reading", { value: number, ts: ts++ }, (answer) => {
        say(number, answer.status, answer.code);
        setTimeout(send, 100);
      });
    };
    send();
  });
}

setTimeout(() => process.exit(3), 120000).unref();
