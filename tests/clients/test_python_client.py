"""The Python client, with its own reconnection, connects, streams, renews its token, expires, and reconnects."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import socketio

from readings.document import decode_document
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ACCEPTED, ISSUING, TS, gateway, reading


def token(seconds: float) -> str:
    return ISSUING.device(exp=int(time.time() + seconds) + 1)


async def test_it_streams_renews_expires_and_reconnects(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    events: list[str] = []
    acknowledged: set[int] = set()
    on_second: list[int] = []
    async with gateway(fake_broker, expiring_seconds=1.5) as running:
        first, renewal, fresh = token(2), token(5), token(60)
        client = socketio.AsyncClient(http_session=running.http, reconnection_delay=0.1, reconnection_delay_max=0.3)

        async def expiring(_: Any) -> None:
            events.append("auth_expiring")
            if events.count("auth_expiring") == 1:
                answer = await client.call("authenticate", {"token": renewal}, timeout=5)
                events.append(answer["status"])

        client.on("auth_expiring", expiring)
        client.on("auth_expired", lambda _: events.append("auth_expired"))
        client.on("connect", lambda: events.append("connect"))
        client.on("disconnect", lambda *_: events.append("disconnect"))
        await client.connect(
            running.url,
            auth=lambda: {"token": fresh if "disconnect" in events else first},
            transports=["websocket"],
        )
        number = 0
        async with asyncio.timeout(30):
            while len(on_second) < 20:
                number += 1
                again = events.count("connect") == 2
                with suppress(socketio.exceptions.SocketIOError):  # lost with its connection, so not acknowledged
                    if await client.call("reading", reading(number, ts=TS + number), timeout=3) == ACCEPTED:
                        acknowledged.add(number)
                        if again:
                            on_second.append(number)
                await asyncio.sleep(0.02)
        await client.disconnect()
    assert events[:7] == [
        "connect",
        "auth_expiring",
        "accepted",
        "auth_expiring",
        "auth_expired",
        "disconnect",
        "connect",
    ]
    documents = [decode_document(body) for message in fake_broker.outgoing.messages for body in message.documents()]
    assert acknowledged <= {int(document["_id"]["ts"]) - TS for document in documents}
    assert len(acknowledged) > 100
