"""Keeps the device connected: it comes back after everything that is not final, and renews its token meanwhile."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from device.errors import DeviceRefused, NotNow
from device.sender import Sender
from device.tokens import Tokens
from device.transport import Connection, Transport

# The first wait after a loss, which doubles with each connect that fails, and its bound: half of it to all of it.
FIRST_WAIT_S, MAX_WAIT_S = 0.5, 5.0
RENEWAL_TIMEOUT_S = 10.0
RENEW_AGAIN_S = 3.0

_log = logging.getLogger("device")


class Link:
    """The present connection, if there is one. `on_event` gets every event but those about the token."""

    def __init__(
        self,
        url: str,
        transport: Transport,
        tokens: Tokens,
        sender: Sender,
        options: dict[str, Any],
        on_event: Callable[[str, Any], Any],
    ) -> None:
        self._url = url
        self._transport = transport
        self._tokens = tokens
        self._sender = sender
        self._options = options
        self._on_event = on_event
        self._connection: Connection | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def run(self) -> DeviceRefused:
        """Connect again and again; returns why the server refuses the device for good."""
        attempt = 0
        while True:
            began, asked_s = time.monotonic(), 0.0
            try:
                await self._connect_once()
            except NotNow as error:
                _log.info("Not connected: %s", error)
                asked_s = error.retry_after_s
            except DeviceRefused as error:
                _log.warning("The server refused the device: %s", error)
                if not self._tokens.another():
                    return error
            attempt = 0 if self._sender.last_ack_at > began else attempt + 1
            await asyncio.sleep(wait_s(attempt, asked_s))

    async def _connect_once(self) -> None:
        """Connect, and return when the connection is lost."""
        token = await self._tokens.for_connect()
        connection = self._transport.connection(self._sender.on_ack, self._take_event)
        try:
            await connection.open(self._url, {"token": token, **self._options})
            self._connection = connection
            self._tokens.accepted()
            await self._send_until_lost(connection)
        finally:
            self._connection = None
            if self._renewing is not None:
                self._renewing.cancel()
            await connection.close()

    async def _send_until_lost(self, connection: Connection) -> None:
        sending = asyncio.create_task(self._sender.run(connection))
        sending.add_done_callback(lambda _: connection.lost.set())
        try:
            await connection.lost.wait()
        finally:
            sending.cancel()
            await asyncio.wait((sending,))
        if not sending.cancelled() and (error := sending.exception()) is not None:
            _log.warning("Readings could not be sent, which is tried again: %r", error)

    def check(self) -> None:
        """End a connection whose peer is gone; call it about once a second."""
        if self._connection is not None and not self._sender.check_timeouts(self._connection):
            self._connection.lost.set()

    async def _take_event(self, name: str, payload: Any) -> Any:
        if name != "auth_expiring":
            return await self._on_event(name, payload)
        if self._connection is not None and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._renew(self._connection))
        return None

    async def _renew(self, connection: Connection) -> None:
        """Replace the token of this session; tries until the server has answered or the connection is lost."""
        while not connection.lost.is_set():
            try:
                token = await self._tokens.next()
                answer = await connection.request("authenticate", {"token": token}, RENEWAL_TIMEOUT_S)
            except (NotNow, TimeoutError) as error:
                _log.info("The token was not renewed yet: %s", error)
            else:
                status = answer.get("status") if isinstance(answer, dict) else None
                if status == "accepted":
                    self._tokens.accepted()
                if status != "retry":
                    return
            await asyncio.sleep(RENEW_AGAIN_S * random.uniform(0.5, 1.0))


def wait_s(attempt: int, asked_s: float) -> float:
    """Return the seconds to wait after `attempt` connections without an acknowledgement; `asked_s` or more."""
    longest_s = min(FIRST_WAIT_S * float(2 ** min(attempt, 10)), MAX_WAIT_S)
    return asked_s + longest_s * random.uniform(0.5, 1.0)
