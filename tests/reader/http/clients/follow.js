// A page's script that follows a live feed with fetch-event-source and comes back when it is cut.
// URL and TOKEN say where and as whom. One line of JSON an event; its data is read as JSON, whatever it is.
globalThis.window = globalThis; // where it finds its timers
const { fetchEventSource } = require("@microsoft/fetch-event-source");

const say = (what) => console.log(JSON.stringify(what));
const headers = { Authorization: `Bearer ${process.env.TOKEN}` };
fetchEventSource(process.env.URL, {
  headers,
  fetch,
  openWhenHidden: true, // there is no document
  onopen: async () => say("open"),
  onmessage: ({ event, id, data }) => say([event, id, JSON.parse(data)]),
  onclose: () => {
    throw new Error("cut"); // as its page says: to come back
  },
  onerror: (error) => {
    if (error.message !== "cut") say(String(error));
    return 50;
  },
});
setTimeout(() => process.exit(3), 60000).unref();
