"""python-socketio on aiohttp to RabbitMQ, as tutorials write it: `python -m bench.peers.python.server`.

One persistent message a reading, acknowledged to the device once RabbitMQ has confirmed it. The default event loop;
readings are not validated, and nobody's rate is limited: what that saves speaks for this system.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import socketio
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractExchange
from aiohttp import web

from bench.peers.python.input import end_with_input
from bench.peers.python.queue import QUEUE, connect, declare_queue

EXCHANGE = web.AppKey("exchange", AbstractExchange)


class Devices:
    """The handlers of Socket.IO's events."""

    def __init__(self, sio: Any, app: web.Application) -> None:
        self._sio = sio
        self._app = app

    async def connect(self, sid: str, _: dict[str, Any], auth: dict[str, Any] | None) -> None:
        """Verify the token once per connection."""
        try:
            claims = jwt.decode(
                (auth or {}).get("token", ""),
                os.environ["PUBLIC_KEY_PEM"],
                algorithms=["EdDSA"],
                issuer=os.environ["TOKEN_ISSUER"],
                audience="tidegate",
            )
            series = {"owner": claims["owner"], "device": claims["device"]}
        except (jwt.InvalidTokenError, KeyError) as error:
            raise socketio.exceptions.ConnectionRefusedError("authentication failed") from error
        await self._sio.save_session(sid, series)

    async def reading(self, sid: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Acknowledge one reading; nothing is acknowledged if this raises."""
        await self._publish(await self._sio.get_session(sid), sent)
        return {"status": "accepted", "accepted": 1}

    async def readings(self, sid: str, sent: list[dict[str, Any]]) -> dict[str, Any]:
        """Acknowledge an array of readings, whose confirms are awaited together."""
        series = await self._sio.get_session(sid)
        await asyncio.gather(*(self._publish(series, reading) for reading in sent))
        return {"status": "accepted", "accepted": len(sent)}

    async def _publish(self, series: dict[str, str], reading: dict[str, Any]) -> None:
        """Return once it is confirmed: aio-pika enables publisher confirms by default."""
        body = json.dumps({**reading, **series, "receivedAt": time.time_ns() // 1_000_000}).encode()
        message = Message(body, delivery_mode=DeliveryMode.PERSISTENT)
        await self._app[EXCHANGE].publish(message, routing_key=QUEUE)


async def broker(app: web.Application) -> AsyncIterator[None]:
    """Hold the connection to RabbitMQ, with one channel that all devices share."""
    async with await connect() as connection:
        channel = await connection.channel()
        await declare_queue(channel)
        app[EXCHANGE] = channel.default_exchange
        yield


async def watch_input(_: web.Application) -> AsyncIterator[None]:
    """Watch standard input while the server runs."""
    task = asyncio.create_task(end_with_input())
    yield
    task.cancel()


def main() -> None:
    """Serve until SIGTERM or the end of standard input."""
    sio = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"])
    app = web.Application()
    devices = Devices(sio, app)
    for handler in (devices.connect, devices.reading, devices.readings):
        sio.on(handler.__name__, handler)
    sio.attach(app)
    app.cleanup_ctx.extend([broker, watch_input])
    port = int(os.environ["PORT"])
    # Without access log, as Tidegate is; a second for open connections at the end, where aiohttp would wait a minute.
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, backlog=4096, shutdown_timeout=1)


if __name__ == "__main__":
    main()
