"""The interface of a broker, whichever implementation: confirmed publishing, bounded consuming, settling.

Promises that the contract tests hold every implementation to:
- `publish` returns only when the message survives the death of every process; an exception promises nothing;
- a message delivered and not settled is redelivered with a higher `delivery_count`; so is a requeued one, which some
  brokers count as a delivery (RabbitMQ before 4.3, the embedded one) and some do not;
- a consumer holds at most `prefetch` unsettled messages, parked ones not counted;
- a rejected message is in the dead-letter queue;
- a full queue refuses and drops nothing. A full dead-letter queue does too: what it refuses stays in its queue;
- a broadcast reaches every present subscriber, and never blocks or fails the broadcaster.
"""

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from broker.message import Message
from broker.topology import Exchange, Queue


class BrokerError(Exception):
    """A message was not accepted, or it is unknown whether it was. Nothing is promised; send it again."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached, or the publisher is closed."""


class BrokerRefused(BrokerUnavailable):
    """The broker is reachable and refuses: a permission is missing, a password is wrong, a queue's arguments differ."""


class ConfirmLate(BrokerError):
    """No confirm came in time; the message may or may not be stored."""


class QueueFull(BrokerError):
    """The queue is at its bound and refused the message."""


class Unroutable(BrokerError):
    """No queue is bound that would take the message."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivered message; redelivered unless settled. `delivery_count`: earlier deliveries."""

    message: Message
    tag: int
    delivery_count: int
    # The connection that delivered it; the tag is valid only there.
    generation: int = 0
    # Seconds of the monotonic clock. RabbitMQ's consumer timeout runs from about then.
    arrived_at: float = field(default_factory=time.monotonic, compare=False)


class Publisher(Protocol):
    """Publishes messages, each confirmed."""

    async def publish(self, message: Message, exchange: Exchange) -> None:
        """Return when the broker has taken responsibility; BrokerError in every other case."""

    async def check(self) -> None:
        """Raise BrokerUnavailable while nothing can be published: for `/readyz`."""


class Consumer(Protocol):
    """Receives messages from one queue."""

    @property
    def generation(self) -> int:
        """The number of the current connection. Unsettled messages of earlier ones are redelivered."""

    async def get(self) -> Delivery:
        """Wait for the next message, through outages. After an outage unsettled messages are redelivered."""

    def get_nowait(self) -> Delivery | None:
        """Return the next message if it has arrived already, else None."""

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> bool:
        """Settle this message, or all up to and including it. A stale delivery settles nothing: False, redelivered."""

    async def reject(self, delivery: Delivery) -> None:
        """Send this message to the dead-letter queue. A stale delivery is ignored: it is redelivered."""

    async def requeue(self, delivery: Delivery) -> None:
        """Return this message to its queue, to be redelivered soon. A stale delivery is ignored."""

    async def park(self, delivery: Delivery) -> None:
        """Exclude this unsettled message from the prefetch window. An implementation may apply this in batches."""

    async def stop(self) -> None:
        """Receive nothing more; messages delivered before can still be settled."""

    async def check(self) -> None:
        """Raise BrokerUnavailable while nothing can be delivered: for `/readyz`."""


class Broadcaster(Protocol):
    """Sends to the present subscribers. Nothing is stored or confirmed, and no caller is ever blocked or failed."""

    @property
    def dropped(self) -> int:
        """How many payloads were dropped because the broker was unreachable or the buffer was full."""

    def broadcast(self, payload: bytes) -> None:
        """Send one payload, or drop it and count it."""

    async def until_refused(self) -> BrokerRefused:
        """Wait until the broker refuses what was sent since it last answered, as a permission is missing."""


class Subscriber(Protocol):
    """Receives broadcasts: `async for payload in subscriber` never ends, and continues after outages."""

    @property
    def dropped(self) -> int:
        """How many payloads were dropped here: the oldest of a full buffer, and those of an unknown schema."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield payloads in the order of their arrival."""

    async def check(self) -> None:
        """Raise BrokerUnavailable while nothing can be received: for `/readyz`."""


class QueueBrowser(Protocol):
    """Passes over a queue once. Messages that are not settled stay in the queue, or return to it at the end."""

    def __aiter__(self) -> AsyncIterator[Delivery]:
        """Yield the messages that were in the queue at the start, oldest first; later ones are not visited."""

    async def settle(self, delivery: Delivery) -> None:
        """Remove this message from the queue for good; BrokerUnavailable when that is not certain."""


class Inspector(Protocol):
    """Asks about queues, again and again."""

    async def depth(self, queue: Queue) -> int:
        """Return how many messages of the queue are waiting to be delivered; BrokerUnavailable if unreachable."""


class Broker(Inspector, Protocol):
    """Access to the exchanges and queues. Leaving a context settles nothing."""

    def publisher(self, *exchanges: Exchange, confirm_timeout_s: float = 4.0) -> AbstractAsyncContextManager[Publisher]:
        """Open a publisher to these exchanges, or to all; it reconnects by itself."""

    def consumer(self, queue: Queue, *, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        """Open a consumer of `queue` that holds at most `prefetch` unsettled messages."""

    def broadcaster(self, exchange: Exchange) -> AbstractAsyncContextManager[Broadcaster]:
        """Open a broadcaster to a fanout exchange."""

    def subscriber(self, exchange: Exchange, *, bound: int) -> AbstractAsyncContextManager[Subscriber]:
        """Subscribe to a fanout exchange; at most `bound` payloads are buffered, then the oldest is dropped."""

    def browser(self, queue: Queue) -> AbstractAsyncContextManager[QueueBrowser]:
        """Browse a queue while others consume it; BrokerUnavailable when the broker cannot be reached."""

    def inspector(self) -> AbstractAsyncContextManager[Inspector]:
        """Ask about queues often, over a connection that stays open; for one question the broker itself will do."""

    async def declare(self) -> None:
        """Return when every exchange and queue exists and survives a crash; BrokerUnavailable if unreachable."""

    async def consumers(self, queue: Queue) -> int:
        """Return how many consumers the queue has, of any process; BrokerUnavailable if unreachable.

        One that died counts, and keeps its unsettled messages, until the broker has noticed.
        """
