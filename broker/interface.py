"""What a broker does, whichever one it is: confirmed publishing, consuming with a bound, settling.

Promises that the contract tests hold every implementation to:
- `publish` returns only when the message survives the death of every process; an exception promises nothing;
- what was delivered and not settled is delivered again, with a higher `delivery_count`; what was given back is, too,
  and there some brokers count (RabbitMQ before 4.3, the embedded one) and some do not;
- a consumer holds at most `prefetch` unsettled messages, those that were put aside not counted;
- a rejected message is in the dead-letter queue;
- a full queue refuses, it does not drop; that holds for the dead letters' queue too: what it refuses stays;
- what is announced reaches every listener that is there, and never holds or fails the one who announces.
"""

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from broker.message import Message
from broker.topology import Exchange, Queue


class BrokerError(Exception):
    """A message was not accepted, or its acceptance is not known. Nothing is promised; send it again."""


class BrokerUnavailable(BrokerError):
    """The broker is away, or the publisher is closed."""


class BrokerRefused(BrokerUnavailable):
    """The broker is there and refuses: a right is missing, a password is wrong, a queue has other arguments."""


class ConfirmLate(BrokerError):
    """No confirm came in time; the message may or may not be stored."""


class QueueFull(BrokerError):
    """The queue is at its bound and refused the message."""


class Unroutable(BrokerError):
    """No queue is bound that would take the message."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message on loan: settle it, or it comes again. `delivery_count` is how often it was delivered before."""

    message: Message
    tag: int
    delivery_count: int
    # Which connection delivered it: a tag means nothing on another one.
    generation: int = 0
    # Of the monotonic clock, in seconds: RabbitMQ's consumer time-out runs from about then.
    arrived_at: float = field(default_factory=time.monotonic, compare=False)


class Publisher(Protocol):
    """Publishes messages, each confirmed."""

    async def publish(self, message: Message, exchange: Exchange) -> None:
        """Return when the broker has taken responsibility; BrokerError in every other case."""

    async def check(self) -> None:
        """Raise BrokerUnavailable while nothing can be published: for `/readyz`."""


class Consumer(Protocol):
    """Takes messages from one queue."""

    @property
    def generation(self) -> int:
        """Which connection delivers now. What an earlier one delivered and nobody settled comes again."""

    async def get(self) -> Delivery:
        """Wait for the next message. Waits through outages; after one, unsettled messages come again."""

    def get_nowait(self) -> Delivery | None:
        """Return the next message if it has arrived already, else None."""

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> bool:
        """Settle this message, or all up to and including it. False, and nothing is settled: stale, it comes again."""

    async def reject(self, delivery: Delivery) -> None:
        """Hand this message to the dead-letter queue. A stale delivery is ignored: it comes again."""

    async def requeue(self, delivery: Delivery) -> None:
        """Return this message to its queue: it is delivered again, soon. A stale delivery is ignored."""

    async def park(self, delivery: Delivery) -> None:
        """Let this unsettled message take no room, so that another is delivered, at the latest once many are aside."""

    async def stop(self) -> None:
        """Be delivered nothing more; what was delivered can still be settled."""

    async def check(self) -> None:
        """Raise BrokerUnavailable while nothing can be delivered: for `/readyz`."""


class Broadcaster(Protocol):
    """Tells whoever listens now. Nothing is kept, nothing is confirmed, and no caller is ever held or failed."""

    @property
    def dropped(self) -> int:
        """How many payloads were not handed on, because the broker was away or too much was waiting for it."""

    def broadcast(self, payload: bytes) -> None:
        """Hand on one payload, or drop it and count it."""


class Subscriber(Protocol):
    """Hears what is announced while it listens: `async for payload in listener`, for ever, through outages."""

    @property
    def dropped(self) -> int:
        """How many payloads were dropped here, the oldest first, because nobody took them, or not understood."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Give payloads in the order of their arrival."""

    async def check(self) -> None:
        """Raise BrokerUnavailable while nothing can be heard: for `/readyz`."""


class QueueBrowser(Protocol):
    """Goes through a queue once, without taking from it what is not settled: that stays, or goes back at the end."""

    def __aiter__(self) -> AsyncIterator[Delivery]:
        """Give what was in the queue when this began, oldest first; what comes later is left alone."""

    async def settle(self, delivery: Delivery) -> None:
        """Take this message out of the queue for good; BrokerUnavailable when that is not certain."""


class Broker(Protocol):
    """A way to reach the queues. Leaving a context settles nothing that was not settled."""

    def publisher(self, *exchanges: Exchange, confirm_timeout_s: float = 4.0) -> AbstractAsyncContextManager[Publisher]:
        """Open a publisher to these exchanges, or to all; it connects by itself and again after every loss."""

    def consumer(self, queue: Queue, *, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        """Open a consumer of `queue` that holds at most `prefetch` unsettled messages."""

    def broadcaster(self, exchange: Exchange) -> AbstractAsyncContextManager[Broadcaster]:
        """Open an announcer to a fanout exchange."""

    def subscriber(self, exchange: Exchange, *, bound: int) -> AbstractAsyncContextManager[Subscriber]:
        """Listen to a fanout exchange; at most `bound` payloads wait, the oldest is dropped."""

    def browser(self, queue: Queue) -> AbstractAsyncContextManager[QueueBrowser]:
        """Look into a queue, while others work on it; BrokerUnavailable when it is away."""

    async def declare(self) -> None:
        """Return when every exchange and queue is there and outlives a crash; BrokerUnavailable when it is away."""

    async def depth(self, queue: Queue) -> int:
        """Return how many messages of the queue are waiting to be delivered; BrokerUnavailable when it is away."""
