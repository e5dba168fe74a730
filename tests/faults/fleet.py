"""Devices that stream through either gateway, repeat what was not accepted, and record what was acknowledged."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp
import socketio

from readings.document import encode_document
from readings.reading import Reading
from tests.faults.library_fleet import LibraryFleet
from tests.integration.device import connected, new_token, registered_device

Identity = tuple[str, str, str, int, int]
ANSWER_WITHIN_S = 8.0
MAX_READINGS = 20


class Sender:
    """One device."""

    def __init__(self, number: int, urls: list[str], owner: str, device: str, token: str, seed: int) -> None:
        self.number = number
        self.owner, self.device, self.token = owner, device, token
        # Returns a new token when this one is refused for good; None if that must not happen.
        self.renew: Callable[[], Awaitable[str]] | None = None
        # When an event or a refusal notified it that its token has ended.
        self.notified_at = 0.0
        self._token_ended = False
        self._urls = urls
        self._random = random.Random(f"{seed}/{number}")
        self._made = 0
        self._pending: list[dict[str, Any]] = []
        self.sent: dict[Identity, int] = {}
        self.acknowledged: set[Identity] = set()
        self.refused: list[dict[str, Any]] = []
        self.last_accepted_at = 0.0
        self.sensor_type = "start"
        self.clock_off_ms = 0
        self.may_send = asyncio.Event()
        # What it asks for when it connects, besides.
        self._asks: dict[str, Any] = {}
        self._gone = asyncio.Event()

    @property
    def idle(self) -> bool:
        return not self._pending

    async def run(self) -> None:
        """Stream until cancelled, over any gateway that takes the connection."""
        while True:
            self._urls.append(self._urls.pop(0))
            client, token = socketio.AsyncClient(reconnection=False), self.token
            client.on("connect_error", self._refused)
            client.on("auth_revoked", self._ended)
            client.on("stored", self._stored)
            auth = {"token": token, **self._asks}
            try:
                await client.connect(self._urls[0], auth=auth, transports=["websocket"], wait_timeout=5)
                await self._stream(client)
            except (socketio.exceptions.SocketIOError, OSError, TimeoutError):
                if self.renew is not None and self._token_ended:
                    await self._renewed()
                await asyncio.sleep(0.1 + self._random.random() / 5)
            finally:
                with suppress(Exception):
                    await asyncio.wait_for(client.disconnect(), 2)
                if client.eio.http is not None:
                    await client.eio.http.close()

    def _refused(self, error: Any) -> None:
        if isinstance(error, dict) and (error.get("data") or {}).get("code") in ("revoked", "unauthorized", "expired"):
            self._ended()

    def _ended(self, *_: Any) -> None:
        self._token_ended, self.notified_at = True, time.monotonic()

    async def _renewed(self) -> None:
        assert self.renew is not None
        with suppress(aiohttp.ClientError, TimeoutError):
            self.token, self._token_ended = await self.renew(), False

    def move_to(self, url: str) -> None:
        """Drop the connection at once unless it is to this gateway; the next one goes to another gateway."""
        if self._urls[0] != url:
            self._gone.set()

    async def repeat(self, urls: list[str], times: int) -> None:
        """Send one reading `times` times, over connections to each gateway in turn, whatever the answers are."""
        reading = self._batch(1)
        for url in urls:
            async with connected(url, self.token, self.device) as device:
                answers = await asyncio.gather(*(device.send(reading) for _ in range(times // len(urls))))
            if any(answer["status"] == "accepted" for answer in answers):
                self.acknowledged.update(map(self._identity, reading))

    def published_past_the_gateway(self, size: int) -> list[bytes]:
        """Return readings that the caller publishes, confirmed: they count as acknowledged."""
        made = self._batch(size)
        self.acknowledged.update(map(self._identity, made))
        return [encode_document(self.owner, self.device, as_reading(one)) for one in made]

    async def _stream(self, client: Any) -> None:
        # The client keeps a call waiting for its answer after the connection is gone.
        self._gone.clear()
        client.on("disconnect", lambda *_: self._gone.set())
        while True:
            await self.may_send.wait()
            self._pending = self._pending or self._batch(self._random.randint(1, MAX_READINGS))
            answer = await self._answer(client)
            if answer["status"] == "retry":
                await asyncio.sleep(answer["retryAfterMs"] / 1000)
                continue
            if answer["status"] == "accepted":
                self.acknowledged.update(map(self._identity, self._pending))
                self.last_accepted_at = time.monotonic()
            else:
                self.refused.append(answer)
            if await self._is_done():
                self._pending = []
            await asyncio.sleep(self._pause_s())

    def _stored(self, event: Any) -> None:
        """Take receipts, for which this device does not ask."""

    async def _is_done(self) -> bool:
        """Return whether what was answered need not be sent again."""
        return True

    def _pause_s(self) -> float:
        """Return the pause until the next batch."""
        return self._random.random() / 10

    async def _answer(self, client: Any) -> dict[str, Any]:
        calling = asyncio.ensure_future(client.call("readings", self._pending, timeout=ANSWER_WITHIN_S))
        ending = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((calling, ending), return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise ConnectionResetError
            answer: dict[str, Any] = calling.result()
            return answer
        finally:
            calling.cancel()
            ending.cancel()

    def _batch(self, size: int) -> list[dict[str, Any]]:
        made = []
        for _ in range(size):
            self._made += 1
            ts = time.time_ns() // 1_000_000 + self.clock_off_ms
            # Every reading of a run has its own value: a second copy shows, whatever its key.
            value = self.number * 1_000_000_000 + self._made
            reading = {"sensorType": self.sensor_type, "ts": ts, "seq": self._made, "value": value}
            made.append(reading)
            self.sent[self._identity(reading)] = value
        return made

    def _identity(self, reading: dict[str, Any]) -> Identity:
        return (self.owner, self.device, reading["sensorType"], reading["ts"], reading["seq"])


def as_reading(sent: dict[str, Any]) -> Reading:
    """Return the reading that the gateway makes of what a device sends."""
    return Reading(sent["sensorType"], sent["value"], sent["ts"], sent["seq"], time.time_ns() // 1_000_000)


class Fleet:
    """All devices of a run."""

    def __init__(self, senders: list[Sender]) -> None:
        self.senders = senders
        self.library = LibraryFleet([], 0)

    @classmethod
    async def registered(cls, auth_url: str, urls: list[str], *, devices: int, seed: int) -> "Fleet":
        senders = []
        for number in range(devices):
            email = f"device-{number}@example.com"
            owner, device, token = await registered_device(auth_url, email)
            turned = urls[number % len(urls) :] + urls[: number % len(urls)]
            sender = Sender(number, turned, owner, device, token, seed)
            sender.renew = partial(new_token, auth_url, email, device)
            senders.append(sender)
        return cls(senders)

    def begin(self, sensor_type: str, *, clock_off_ms: int = 0) -> None:
        """Send under this sensorType from here on; what was sent before is already accounted for."""
        for sender in self.senders:
            sender.sensor_type, sender.clock_off_ms = sensor_type, clock_off_ms
            sender.sent.clear()
            sender.acknowledged.clear()
            sender.may_send.set()

    def move_half_to(self, url: str) -> None:
        """Move every second device to this gateway."""
        for sender in self.senders[1::2]:
            sender.move_to(url)

    async def finish(self, within_s: float) -> None:
        """Return once every device has `accepted` for what it has sent, and stop sending."""
        async with asyncio.timeout(within_s):
            while not all(sender.idle for sender in self.senders):
                for sender in self.senders:
                    if sender.idle:
                        sender.may_send.clear()
                await asyncio.sleep(0.005)
        for sender in self.senders:
            sender.may_send.clear()

    async def accepted_since(self, since: float, within_s: float) -> None:
        """Return once every device has got an `accepted` after this time."""
        async with asyncio.timeout(within_s):
            while not all(sender.last_accepted_at > since for sender in self.senders):
                await asyncio.sleep(0.02)

    def sent(self) -> dict[Identity, int]:
        return {identity: value for sender in self.senders for identity, value in sender.sent.items()}

    def acknowledged(self) -> set[Identity]:
        return set().union(*(sender.acknowledged for sender in self.senders))
