"""READINGS → GATEWAY: a device client that keeps every reading until the gateway acknowledges it.

It reconnects without a limit: after a lost connection or a temporary refusal it retries with jittered backoff; a
permanent refusal is raised to the sender. Memory is bounded: `send` waits for room.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from simulator.backoff import backoff
from simulator.commands import refuse
from simulator.errors import DeviceRefusedError, UnavailableError
from simulator.reading import DeviceReading, OnSettled
from simulator.send_window import SendWindow
from simulator.socket_connection import OnCommand, SocketConnection

ACK_TIMEOUT_S = 10.0

Token = str | Callable[[], Awaitable[str]]


class DeviceClient:
    """One device; enter it to connect. `device` labels it in callbacks and is sent only with `send_device`.

    `token` is a token, or a function that fetches a new one and may raise UnavailableError to be called again later.
    `on_sent` receives the number of readings sent for the first time, `on_retried` of those resent, `on_connection`
    True when the connection opens and False when it is lost. Callbacks run on the event loop and must not raise.
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
        ack_timeout_s: float = ACK_TIMEOUT_S,
        on_settled: OnSettled = lambda *_: None,
        on_sent: Callable[[int], None] = lambda _: None,
        on_retried: Callable[[int], None] = lambda _: None,
        on_connection: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.device = device
        self._url = url
        self._token_source = token if callable(token) else None
        self._token = "" if callable(token) else token
        self._send_device = send_device
        self._http = http
        self._own_http: aiohttp.ClientSession | None = None
        self._on_connection = on_connection
        self._send_window = SendWindow(
            device,
            window=window,
            max_unacked=max_unacked,
            timeout_s=ack_timeout_s,
            on_settled=on_settled,
            on_sent=on_sent,
            on_retried=on_retried,
        )
        self._task: asyncio.Task[None] | None = None
        self._first_connect = asyncio.Event()
        # Called with a command's name and payload; returns its acknowledgement.
        self.on_command: OnCommand = refuse
        self._failure: Exception | None = None

    @property
    def unacked(self) -> int:
        """The number of readings that are not acknowledged yet, sent or not."""
        return self._send_window.unacked

    async def __aenter__(self) -> Self:
        """Start connecting, without waiting for the connection."""
        if self._http is None:
            self._http = self._own_http = device_session()
        self._task = asyncio.create_task(self._keep_connected(self._http), name=f"device {self.device}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection and discard unacknowledged readings (`flush` first)."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._send_window.close()
        if self._own_http is not None:
            await self._own_http.close()

    async def first_connected(self) -> None:
        """Wait until the device has connected for the first time; raises if the gateway refuses it permanently."""
        await self._first_connect.wait()
        if self._failure is not None:
            raise self._failure

    async def send(self, readings: Sequence[DeviceReading]) -> None:
        """Queue readings in events of at most 1,000; wait while the buffer is full; raises on a permanent refusal."""
        await self._send_window.enqueue(readings)

    async def flush(self) -> None:
        """Wait until every reading is acknowledged; raises if the device is refused permanently."""
        await self._send_window.drain()

    async def _keep_connected(self, http: aiohttp.ClientSession) -> None:
        attempt = 0
        try:
            while True:
                started_at, requested_s = time.monotonic(), 0.0
                try:
                    await self._run_connection(http)
                except UnavailableError as error:
                    requested_s = error.retry_after_s
                attempt = 1 if self._send_window.last_ack_at > started_at else attempt + 1
                await asyncio.sleep(backoff(attempt, requested_s))
        except Exception as error:  # noqa: BLE001 - raised in `send` and `flush`; the readings stay unacknowledged
            self._failure = error
            self._first_connect.set()
            self._send_window.fail(error)

    async def _run_connection(self, http: aiohttp.ClientSession) -> None:
        """Connect, and return when the connection is lost."""
        connection = await self._open(http)
        self._first_connect.set()
        self._on_connection(True)
        try:
            self._send_window.attach(connection)
            await self._wait_until_lost(connection)
        finally:
            self._send_window.detach()
            self._on_connection(False)
            await connection.close()

    async def _open(self, http: aiohttp.ClientSession) -> SocketConnection:
        """Return an open connection; a token that has expired is replaced once."""
        fresh = self._token_source is None or not self._token
        while True:
            token = self._token or await self._fetch_token()
            connection = SocketConnection(http, self._send_window.on_ack, self._on_command)
            try:
                await connection.open(self._url, token, self.device if self._send_device else None)
            except DeviceRefusedError as error:
                if error.code != "expired" or fresh:
                    raise
                fresh, self._token = True, ""
            else:
                return connection

    def _on_command(self, name: str, payload: object) -> dict[str, Any]:
        return self.on_command(name, payload)

    async def _wait_until_lost(self, connection: SocketConnection) -> None:
        while not connection.lost:
            await connection.changed.wait()
            connection.changed.clear()
            if connection.expiring and self._token_source is not None:
                connection.expiring = False
                try:
                    connection.renew(await self._fetch_token())
                except UnavailableError:
                    self._token = ""  # fetched again before the next connect
        if connection.expired and self._token_source is not None:
            self._token = ""

    async def _fetch_token(self) -> str:
        if self._token_source is not None:
            self._token = await self._token_source()
        return self._token


def device_session() -> aiohttp.ClientSession:
    """Return a session for any number of devices: aiohttp's default limits a session to 100 connections."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
