"""Stock python-socketio on aiohttp, which only acknowledges."""

import os
from typing import Any

import socketio
from aiohttp import web

sio = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"])


async def reading(_: str, __: Any) -> dict[str, Any]:
    """Acknowledge one reading."""
    return {"status": "accepted", "accepted": 1}


async def readings(_: str, sent: list[Any]) -> dict[str, Any]:
    """Acknowledge an array of readings."""
    return {"status": "accepted", "accepted": len(sent)}


if __name__ == "__main__":
    sio.on("reading", reading)
    sio.on("readings", readings)
    app = web.Application()
    sio.attach(app)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None, backlog=4096)
