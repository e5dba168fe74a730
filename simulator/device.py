"""READINGS → GATEWAY: a device client that keeps every reading until the gateway answers for it.

It connects for ever: lost connections and refusals for now are tried again after a jittered wait; a refusal for good
is raised to whoever sends. Everything held is bounded: `send` waits for room.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import aiohttp

from simulator.backoff import backoff
from simulator.errors import DeviceRefusedError, UnavailableError
from simulator.point import OnSettled, SentPoint
from simulator.send_window import Outbox
from simulator.wire import Wire

ACKNOWLEDGE_TIMEOUT_S = 10.0

Token = str | Callable[[], Awaitable[str]]


class DeviceClient:
    """One device; enter it to connect. `device` labels it in callbacks and is sent only with `send_device`.

    `token` is a token or gives a fresh one; it may raise UnavailableError to be asked again later.
    `on_sent` counts readings sent for the first time, `on_retried` those sent again, `on_connection` gets True and
    False as the connection comes and goes. Callbacks run on the event loop and must not raise.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        device: str = "",
        *,
        send_device: bool = False,
        http: aiohttp.ClientSession | None = None,
        window: int = 4,
        max_unacked: int = 5000,
        acknowledge_timeout_s: float = ACKNOWLEDGE_TIMEOUT_S,
        on_settled: OnSettled = lambda *_: None,
        on_sent: Callable[[int], None] = lambda _: None,
        on_retried: Callable[[int], None] = lambda _: None,
        on_connection: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.device = device
        self._url = url
        self._fetch = token if callable(token) else None
        self._token = "" if callable(token) else token
        self._send_device = send_device
        self._http = http
        self._own_http: aiohttp.ClientSession | None = None
        self._on_connection = on_connection
        self._outbox = Outbox(
            device,
            window=window,
            max_unacked=max_unacked,
            timeout_s=acknowledge_timeout_s,
            on_settled=on_settled,
            on_sent=on_sent,
            on_retried=on_retried,
        )
        self._task: asyncio.Task[None] | None = None
        self._met = asyncio.Event()
        self._failure: Exception | None = None

    @property
    def unacked(self) -> int:
        """How many readings wait to be sent or acknowledged."""
        return self._outbox.held

    async def __aenter__(self) -> Self:
        """Start connecting; does not wait for it."""
        if self._http is None:
            self._http = self._own_http = device_session()
        self._task = asyncio.create_task(self._stay_connected(self._http), name=f"device {self.device}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection; readings that are not acknowledged are forgotten (`flush` first)."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._outbox.close()
        if self._own_http is not None:
            await self._own_http.close()

    async def first_connected(self) -> None:
        """Wait until the gateway has taken the device for the first time; raises when it refuses it for good."""
        await self._met.wait()
        if self._failure is not None:
            raise self._failure

    async def send(self, readings: Sequence[SentPoint]) -> None:
        """Queue readings, as one event up to 1,000; waits while the buffer is full, raises when refused for good."""
        await self._outbox.put(readings)

    async def flush(self) -> None:
        """Wait until everything is acknowledged; raises when the device is refused for good."""
        await self._outbox.empty()

    async def _stay_connected(self, http: aiohttp.ClientSession) -> None:
        attempt = 0
        try:
            while True:
                started_at, asked_s = time.monotonic(), 0.0
                try:
                    await self._connection(http)
                except UnavailableError as error:
                    asked_s = error.retry_after_s
                attempt = 1 if self._outbox.heard_at > started_at else attempt + 1
                await asyncio.sleep(backoff(attempt, asked_s))
        except Exception as error:  # noqa: BLE001 - whoever sends or flushes gets it; the readings stay unacknowledged
            self._failure = error
            self._met.set()
            self._outbox.fail(error)

    async def _connection(self, http: aiohttp.ClientSession) -> None:
        """Connect, and stay until the connection is lost."""
        wire = await self._open(http)
        self._met.set()
        self._on_connection(True)
        try:
            self._outbox.attach(wire)
            await self._until_lost(wire)
        finally:
            self._outbox.detach()
            self._on_connection(False)
            await wire.close()

    async def _open(self, http: aiohttp.ClientSession) -> Wire:
        """Return an open wire; a token that has expired is replaced once."""
        fresh = self._fetch is None or not self._token
        while True:
            token = self._token or await self._fetch_token()
            wire = Wire(http, self._outbox.on_answer)
            try:
                await wire.open(self._url, token, self.device if self._send_device else None)
            except DeviceRefusedError as error:
                if error.code != "expired" or fresh:
                    raise
                fresh, self._token = True, ""
            else:
                return wire

    async def _until_lost(self, wire: Wire) -> None:
        while not wire.lost:
            await wire.changed.wait()
            wire.changed.clear()
            if wire.expiring and self._fetch is not None:
                wire.expiring = False
                try:
                    wire.renew(await self._fetch_token())
                except UnavailableError:
                    self._token = ""  # asked for again at the next connect
        if wire.expired and self._fetch is not None:
            self._token = ""

    async def _fetch_token(self) -> str:
        if self._fetch is not None:
            self._token = await self._fetch()
        return self._token


def device_session() -> aiohttp.ClientSession:
    """Return a session that any number of devices may share: aiohttp's own default would stop at 100 of them."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
