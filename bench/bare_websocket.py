"""A bare aiohttp WebSocket with just enough Socket.IO to acknowledge: `python -m bench.bare_websocket PORT`."""

import json
import sys

import uvloop
from aiohttp import WSMsgType, web


async def connection(request: web.Request) -> web.WebSocketResponse:
    """Accept the connection, then parse and acknowledge each event."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    await socket.send_str('0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}')
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            break
        text: str = message.data
        if text.startswith("40"):
            await socket.send_str('40{"sid":"x"}')
        elif text.startswith("42"):
            at = text.index("[")
            json.loads(text[at:])
            await socket.send_str(f'43{text[2:at]}[{{"status":"accepted","accepted":1}}]')
    return socket


if __name__ == "__main__":
    uvloop.install()
    app = web.Application()
    app.router.add_get("/socket.io/", connection)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
