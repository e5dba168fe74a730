"""ALARMS → READER: changes of alarms, as `alarm` events of the live feeds of their owners.

Transient, like live readings: changes that a feed missed are in `GET /alarms` and in the alarms' histories.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from broker.alarms import AlarmEvent, decode_event
from broker.interface import Broker, Subscriber
from broker.topology import ALARM_EVENTS_EXCHANGE
from reader.live.from_live import FromLive
from reader.metrics import ReaderMetrics
from runtime.background import background

# Queued events of less than 2 kB each; beyond it the oldest are dropped.
MAX_QUEUED_EVENTS = 10_000


class FromAlarms:
    """Passes alarms on to feeds."""

    def __init__(self, subscriber: Subscriber, live: FromLive, metrics: ReaderMetrics) -> None:
        self._subscriber = subscriber
        self._live = live
        self._metrics = metrics

    @classmethod
    @asynccontextmanager
    async def subscribed(cls, broker: Broker, live: FromLive, metrics: ReaderMetrics) -> AsyncIterator["FromAlarms"]:
        """Subscribe and pass on while the context is open."""
        async with broker.subscriber(ALARM_EVENTS_EXCHANGE, bound=MAX_QUEUED_EVENTS) as subscriber:
            alarms = cls(subscriber, live, metrics)
            async with background(alarms.receive(), name="alarms"):
                yield alarms

    async def receive(self) -> None:
        """Pass on what is broadcast; never returns."""
        async for payload in self._subscriber:
            try:
                event = decode_event(payload)
            except msgspec.MsgspecError:
                self._metrics.live_unreadable.inc()
                continue
            self._live.offer_alarm(event.owner, event.device, event.sensor_type, sent_event(event))


def sent_event(event: AlarmEvent) -> bytes:
    """Return a change of an alarm as an event, without its owner: the feed is the owner's."""
    fields = {name: one for name, one in msgspec.to_builtins(event).items() if name != "owner" and one is not None}
    return b"event: alarm\ndata: " + msgspec.json.encode(fields) + b"\n\n"
