"""PERSISTERS → DEVICES: receipts, which of their readings are stored, for devices that asked for them.

A receipt goes to every session of the device at this gateway that asked. It is lost if the device is away, or does not
read: the device asks for it later (`POST /readings/stored`).
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import groupby

import msgspec

from broker.interface import Broker, Subscriber
from broker.receipts import StoredSeries, decode_stored
from broker.topology import STORED_EXCHANGE
from gateway.metrics import GatewayMetrics
from gateway.session import Session
from runtime.background import background
from runtime.logs import logger

log = logger("gateway.receipts")

# Payloads of up to 5,000 readings that the subscriber keeps; some 130 kB each at most, so 26 MB in all.
MAX_QUEUED = 200
# Readings in one `stored` event.
MAX_READINGS = 1000

Device = tuple[str, str]
Send = Callable[[str, bytes], bool]
"""Sends a packet to a session by its sid; False if it cannot take one now."""
_encode = msgspec.json.Encoder().encode


class _Item(msgspec.Struct, rename="camel"):
    sensor_type: str
    readings: list[tuple[int, int]]


class _Stored(msgspec.Struct):
    items: list[_Item]


class Receipts:
    """The sessions of this gateway that asked for receipts, by owner and device."""

    def __init__(self, send: Send, metrics: GatewayMetrics) -> None:
        self._send = send
        self._metrics = metrics
        self._sids: defaultdict[Device, set[str]] = defaultdict(set)

    def add(self, sid: str, session: Session) -> None:
        """Send receipts to this session from now on, if it asked."""
        if session.receipts:
            self._sids[session.owner, session.device].add(sid)

    def remove(self, sid: str, session: Session) -> None:
        """Send this session nothing more."""
        if session.receipts:
            device = (session.owner, session.device)
            self._sids[device].discard(sid)
            if not self._sids[device]:
                del self._sids[device]

    @asynccontextmanager
    async def passed_on(self, broker: Broker) -> AsyncIterator[None]:
        """Pass on what persisters broadcast while the context is open."""
        async with (
            broker.subscriber(STORED_EXCHANGE, bound=MAX_QUEUED) as subscriber,
            background(self._receive(subscriber), name="receipts"),
        ):
            yield

    async def _receive(self, subscriber: Subscriber) -> None:
        async for payload in subscriber:
            if not self._sids:
                continue
            try:
                stored = decode_stored(payload)
            except msgspec.DecodeError as error:  # from another version
                log.debug("A receipt could not be decoded.", error=str(error))
                continue
            self.pass_on(stored)
            await asyncio.sleep(0)  # payloads that have queued up are received without a pause

    def pass_on(self, stored: Iterable[StoredSeries]) -> None:
        """Send receipts to the sessions that asked for them."""
        for device, some in groupby(stored, key=lambda one: (one.owner, one.device)):
            sids = self._sids.get(device)
            if not sids:
                continue
            for count, packet in _packets(some):
                for sid in sids:
                    if self._send(sid, packet):
                        self._metrics.receipts.labels("sent").inc(count)
                    else:
                        self._metrics.receipts.labels("dropped").inc(count)


def _packets(stored: Iterable[StoredSeries]) -> Iterator[tuple[int, bytes]]:
    """Yield `stored` events of at most MAX_READINGS each, with the number of their readings."""
    items: list[_Item] = []
    count = 0
    for one in stored:
        start = 0
        while start < len(one.readings):
            some = one.readings[start : start + MAX_READINGS - count]
            items.append(_Item(one.sensor_type, some))
            start, count = start + len(some), count + len(some)
            if count == MAX_READINGS:
                yield count, _packet(items)
                items, count = [], 0
    if items:
        yield count, _packet(items)


def _packet(items: list[_Item]) -> bytes:
    return b'42["stored",' + _encode(_Stored(items)) + b"]"
