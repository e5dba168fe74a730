#!/usr/bin/env bash
# python-socketio's client: a socket that is closed before CONNECT was answered is reported by no event.
#
# A server that is not ready yet (it starts, stops, or is at its limit) accepts the WebSocket, sends Engine.IO's OPEN and,
# when CONNECT comes, closes the socket with 1013 "try again later" and a reason, in place of a CONNECT_ERROR packet,
# which other clients take as final. With `connect(wait=False)` this client then calls neither `connect`,
# `connect_error` nor `disconnect`, although the close frame has arrived. With `wait=True` it waits its whole
# `wait_timeout`, and raises ConnectionError "Unexpected connection error": code and reason of the close are in neither.
# A device that waits for one of the events waits forever: it has to look at `client.eio.state`, or to use
# python-engineio itself.
#
# Seen with python-socketio 5.18.1, python-engineio 4.15.1, aiohttp 3.14.5, Python 3.11 (wait_timeout 3):
#   wait=False   no event within 3 s, eio.state "disconnected"
#   wait=True    no event, ConnectionError "Unexpected connection error" after 3 s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check python-socketio==5.18.1 python-engineio==4.15.1 aiohttp==3.14.5
cat >try.py <<'P'
import asyncio
import time

import socketio
from aiohttp import web


async def refuse(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str('0{"sid":"s","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}')
    assert (await socket.receive_str()).startswith("40")
    await socket.close(code=1013, message=b"unavailable")
    return socket


async def main():
    app = web.Application()
    app.router.add_get("/socket.io/", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = "http://127.0.0.1:%d" % site._server.sockets[0].getsockname()[1]
    for wait in (False, True):
        client = socketio.AsyncClient(reconnection=False)
        events = []
        for name in ("connect", "connect_error", "disconnect"):
            client.on(name, lambda *_, name=name: events.append(name))
        started, error = time.monotonic(), None
        try:
            await client.connect(url, transports=["websocket"], wait=wait, wait_timeout=3)
            await asyncio.sleep(3)
        except socketio.exceptions.ConnectionError as raised:
            error = str(raised)
        seconds = round(time.monotonic() - started)
        print(f"wait={wait}: after {seconds} s events {events}, connected {client.connected}, error {error}")
        print(f"  eio.state {client.eio.state}")
        await client.disconnect()
    await runner.cleanup()


asyncio.run(main())
P
venv/bin/python try.py | tee seen.txt
diff seen.txt - <<'S'
wait=False: after 3 s events [], connected False, error None
  eio.state disconnected
wait=True: after 3 s events [], connected False, error Unexpected connection error
  eio.state disconnected
S
