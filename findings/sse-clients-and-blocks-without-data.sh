#!/usr/bin/env bash
# httpx-sse 0.4.3 and @microsoft/fetch-event-source 2.0.1: a block without data becomes an event.
#
# WHATWG HTML, 9.2.6: at the end of a block whose data buffer is empty, nothing is dispatched. A server may therefore
# send `retry: 2000` or a comment and a blank line. httpx-sse passes the first of these, fetch-event-source both
# to the application as an event with empty data, so that a handler that decodes JSON fails on a valid stream.
# eventsource 3.0.7 dispatches only the one real event. One newline instead of two avoids the problem with all of them.
#
# Seen for "retry: 2000\n\n: hello\n\ndata: 1\n\n":
#   fetch-event-source ["","","1"]   httpx-sse ["","1"]   eventsource ["1"]
set -euo pipefail
command -v node >/dev/null && command -v npm >/dev/null || { echo "node and npm are needed"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check httpx==0.28.1 httpx-sse==0.4.3
npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts @microsoft/fetch-event-source@2.0.1 eventsource@3.0.7
cat >try.mjs <<'J'
import { createServer } from "node:http";
import { EventSource } from "eventsource";
import { createRequire } from "node:module";
import { execFile } from "node:child_process";
const body = "retry: 2000\n\n: hello\n\ndata: 1\n\n";
const server = createServer((request, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(body);
    setTimeout(() => response.end(), 300);
}).listen(0, "127.0.0.1", async () => {
    const url = `http://127.0.0.1:${server.address().port}/`;
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
    globalThis.window = globalThis;
    const { fetchEventSource } = createRequire(import.meta.url)("@microsoft/fetch-event-source");
    const fetched = [];
    const stop = new AbortController();
    await fetchEventSource(url, { signal: stop.signal, openWhenHidden: true, onmessage: (event) => fetched.push(event.data) });
    console.log("fetch-event-source", JSON.stringify(fetched));
    const standard = [];
    const source = new EventSource(url);
    source.onmessage = (event) => standard.push(event.data);
    await new Promise((done) => (source.onerror = done));
    source.close();
    console.log("eventsource", JSON.stringify(standard));
    execFile("venv/bin/python", ["try.py", url], (error, out, err) => {
        process.stdout.write("httpx-sse " + (out || err));
        process.exit(error ? 1 : 0);
    });
});
J
cat >try.py <<'P'
import json, sys
import httpx
from httpx_sse import connect_sse
with httpx.Client() as client, connect_sse(client, "GET", sys.argv[1]) as source:
    print(json.dumps([event.data for event in source.iter_sse()], separators=(",", ":")))
P
node try.mjs | tee seen.txt
diff seen.txt - <<'S'
fetch-event-source ["","","1"]
eventsource ["1"]
httpx-sse ["","1"]
S
