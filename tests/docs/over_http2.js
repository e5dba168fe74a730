// Fetches an address over HTTP/2 and says how it ended: {"status":200,"lines":3000,"end":"whole"|"cut off"}.
const http2 = require("node:http2");

const { URL: address, TOKEN: token, CERTIFICATE: certificate } = process.env;
const to = new URL(address);
const session = http2.connect(to.origin, { ca: require("node:fs").readFileSync(certificate) });
const request = session.request({ ":path": to.pathname + to.search, authorization: `Bearer ${token}` });
const told = { status: 0, lines: 0, end: "" };
request.on("response", (headers) => (told.status = headers[":status"]));
request.on("data", (data) => (told.lines += data.filter((byte) => byte === 10).length));
request.on("end", () => (told.end ||= "whole"));
request.on("error", () => (told.end = "cut off"));
request.on("close", () => {
  console.log(JSON.stringify(told));
  session.close();
});
