"""The gateway: its real fast path, checks, batches and receipts, between simulated sockets and the broker."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from access.revocations import RevocationKeys
from broker.topology import BACKFILL_EXCHANGE, READINGS_EXCHANGE, Exchange
from gateway.ingest import EventHandler
from gateway.lanes import Lanes
from gateway.limits.connections import ConnectionLimits
from gateway.metrics import GatewayMetrics
from gateway.receipts import Receipts
from gateway.session import Session
from gateway.settings import GatewaySettings
from gateway.socket.fast_path import FastPath
from gateway.to_broker import ToBroker
from readings.reading import Defaults
from tests.simulation.broker import BrokerServer
from tests.simulation.history import History
from tests.simulation.loop import Process
from tests.simulation.network import Line
from tests.simulation.to_broker import BrokerLink

_LONG_LENGTH, _SHORT_HEADER, _LONG_HEADER = 126, 2, 4
CONNECTED = b"40"


@cache
def _metrics() -> GatewayMetrics:
    return GatewayMetrics(CollectorRegistry())


@cache
def _settings() -> GatewaySettings:
    return GatewaySettings(broker_url="embedded:///unused", auth_url="http://unused", token_issuer="unused")


class _Socket:
    """A device's socket: what is written to it travels to the device without its WebSocket header."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def write(self, frame: bytes) -> None:
        """Send a text frame."""
        self._line.to_near(frame[_LONG_HEADER if frame[1] == _LONG_LENGTH else _SHORT_HEADER :])


class GatewayServer:
    """One gateway, through all its restarts."""

    def __init__(self, name: str, broker: BrokerServer, history: History, random: Random) -> None:
        self.name = name
        self._broker = broker
        self._history = history
        self._slots = random.randint(1, 4)
        # The small one takes any single event, and is full soon after.
        self._max_waiting_bytes = random.choice((1 << 26, 4_000))
        self.process: Process | None = None
        self._parts: tuple[FastPath, Receipts, ConnectionLimits] | None = None
        self._sockets: dict[str, _Socket] = {}
        self._connects = 0

    @property
    def is_up(self) -> bool:
        """Whether devices can connect."""
        return self._parts is not None

    def start(self, process: Process) -> "asyncio.Task[None]":
        """Run in a process."""
        self.process = process
        return process.spawn(self._serve(process))

    def killed(self) -> None:
        """Forget everything: a gateway keeps nothing."""
        self._parts = None
        self._sockets = {}

    async def _serve(self, process: Process) -> None:
        link = BrokerLink(self._broker, process)
        async with self._lane(link, READINGS_EXCHANGE) as live, self._lane(link, BACKFILL_EXCHANGE) as backfill:
            handler = EventHandler(Lanes(live, backfill, _metrics()), _metrics(), _settings(), defaultdict(int))
            receipts = Receipts(self._send_receipt, _metrics())
            async with receipts.passed_on(link):  # type: ignore[arg-type]  # as much of a broker as it uses
                self._parts = FastPath(handler), receipts, ConnectionLimits(_settings(), clock=time.perf_counter)
                self._history.add("is up")
                await asyncio.Event().wait()

    @asynccontextmanager
    async def _lane(self, link: BrokerLink, exchange: Exchange) -> AsyncIterator[ToBroker]:
        async with (
            link.publisher() as publisher,
            ToBroker(
                publisher,
                _metrics(),
                slots=self._slots,
                max_waiting_bytes=self._max_waiting_bytes,
                exchange=exchange,
            ).running() as to_broker,
        ):
            yield to_broker

    def _send_receipt(self, sid: str, packet: bytes) -> bool:
        if (socket := self._sockets.get(sid)) is None:
            return False
        socket._line.to_near(packet)
        return True

    def accept(self, line: Line) -> None:
        """Take a connection, whose first packet is the CONNECT."""
        line.far.receive = lambda packet: self._connect(line, *packet)

    def _connect(self, line: Line, owner: str, device: str, auth: dict[str, Any]) -> None:
        if self._parts is None:
            line.break_off()
            return
        fast_path, receipts, limits = self._parts
        self._connects += 1
        sid, socket = f"{device}/{self._connects}", _Socket(line)
        quota = limits.acquire_session(owner, device)
        session = Session(
            owner,
            device,
            "",
            Defaults(None, None),
            RevocationKeys("jti", owner, 0, None, device, "kid"),
            1 << 40,
            quota,
            lambda _: True,
            receipts=auth.get("receipts") is True,
        )
        self._sockets[sid] = socket
        receipts.add(sid, session)

        def receive(packet: bytes) -> None:
            assert fast_path.handle(socket, session, packet)

        def lost() -> None:
            if self._sockets.pop(sid, None) is not None:
                receipts.remove(sid, session)
                limits.release_session(owner, device)

        line.far.receive, line.far.lost = receive, lost
        line.to_near(CONNECTED)
