"""Dead letters for an operator: what they contain, how to select them, and how to replay or discard them.

A dead letter comes from a service, which sets its reason (`x-reason`), or from the broker itself, which has its own
(`delivery_limit`, `rejected`, …). A replay publishes it to its exchange, confirmed, before it is settled here: a crash
between the two stores nothing twice, because a reading's identity is its key.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from broker.deleted_owner import DeletedOwner
from broker.headers import (
    DEAD_LETTER_HEADERS,
    DEATH_QUEUE_HEADER,
    DEATH_REASON_HEADER,
    DEATH_TIME_HEADER,
    ERROR_HEADER,
    EXCHANGE_HEADER,
    FIRST_SEEN_HEADER,
    REASON_HEADER,
    REPLAYS_HEADER,
    SERVICE_HEADER,
)
from broker.interface import Broker, Delivery, QueueBrowser
from broker.live import live_readings
from broker.message import DecodeError, Header, Message
from broker.topology import (
    BACKFILL,
    BACKFILL_EXCHANGE,
    DEAD_LETTERS,
    OWNERS_EXCHANGE,
    READINGS_EXCHANGE,
    Exchange,
)
from readings.document import DocumentError

# The services' reasons (persister/metrics.py), RabbitMQ's (x-first-death-reason), and `unknown` for neither.
REASONS = (
    "undecodable",
    "newer_schema",
    "refused",
    "too_often",
    "rejected",
    "expired",
    "maxlen",
    "delivery_limit",
    "unknown",
)
# The exchanges that a dead letter may name; one that names none is a reading's.
_SOURCES = {exchange.name: exchange for exchange in (BACKFILL_EXCHANGE, OWNERS_EXCHANGE)}
# The fewest characters of an id that select a dead letter, if no other id begins with them.
MIN_ID_PREFIX = 6


class AmbiguousIdError(Exception):
    """Several dead letters have ids that begin with the given characters."""

    def __init__(self, prefix: str, dead_letters: Sequence["DeadLetter"]) -> None:
        super().__init__(f"several dead letters begin with {prefix}")
        self.dead_letters = dead_letters


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of the dead-letter queue. In RabbitMQ its position in the queue changes with every browse."""

    delivery: Delivery = field(repr=False)

    @property
    def message(self) -> Message:
        """The message as it is in the queue."""
        return self.delivery.message

    @property
    def id(self) -> str:
        """The message's id; without one, a hash of headers and body. Both stay the same while it is in the queue."""
        if self.message.message_id:
            return self.message.message_id
        headers = json.dumps(sorted(self.message.headers.items())).encode()
        return hashlib.sha256(headers + b"\n" + self.message.body).hexdigest()[:32]

    @property
    def reason(self) -> str:
        """The service's reason, else the broker's, else `unknown`."""
        return self._header(REASON_HEADER) or self._header(DEATH_REASON_HEADER) or "unknown"

    @property
    def replays(self) -> int:
        """How often it was replayed and came back."""
        found = self.message.headers.get(REPLAYS_HEADER, 0)
        return found if isinstance(found, int) else 0

    @property
    def source(self) -> Exchange:
        """The exchange that a replay publishes it to."""
        name = self._header(EXCHANGE_HEADER)
        if name is None and self._header(DEATH_QUEUE_HEADER) == BACKFILL.name:  # the broker's own dead letter
            return BACKFILL_EXCHANGE
        return _SOURCES.get(name or "", READINGS_EXCHANGE)

    def devices(self) -> list[tuple[str, str]]:
        """Return owner and device of each reading; empty when the body does not decode."""
        try:
            return [(reading.owner, reading.device) for reading in live_readings(self.message.body)]
        except DocumentError:
            return []

    def decode_error(self) -> str | None:
        """Return why a persister of this version would dead-letter it again at once, or None."""
        try:
            if self.source is OWNERS_EXCHANGE:
                DeletedOwner.of(self.message)
            else:
                self.message.documents()
        except DecodeError as error:
            return str(error)
        return None

    def summary(self) -> dict[str, Any]:
        """Return the fields that a list shows."""
        devices = self.devices()
        return {
            "id": self.id,
            "reason": self.reason,
            "error": self._header(ERROR_HEADER),
            "service": self._header(SERVICE_HEADER) or "broker",
            "firstSeen": self._header(FIRST_SEEN_HEADER) or self._header(DEATH_TIME_HEADER),
            "readings": len(devices),
            "owner": devices[0][0] if devices else None,
            "device": devices[0][1] if devices else None,
            "bytes": len(self.message.body),
            "replays": self.replays,
        }

    def for_replay(self) -> Message:
        """Return the message as it was before it was dead-lettered, with one more replay counted."""
        headers: dict[str, Header] = {
            name: value for name, value in self.message.headers.items() if not name.startswith(DEAD_LETTER_HEADERS)
        }
        headers[REPLAYS_HEADER] = self.replays + 1
        return Message(self.message.body, headers)

    def _header(self, name: str) -> str | None:
        found = self.message.headers.get(name)
        return None if found is None else str(found)


@dataclass(frozen=True, slots=True)
class Selector:
    """Which dead letters to select; a field that is None selects all. `dead_letter` is an id or the start of one."""

    reason: str | None = None
    device: str | None = None
    limit: int | None = None
    dead_letter: str | None = None

    def matches(self, dead_letter: DeadLetter) -> bool:
        """Return whether this one matches, regardless of the limit and of an ambiguous id."""
        if self.dead_letter is not None and not self._matches_id(dead_letter):
            return False
        if self.reason is not None and dead_letter.reason != self.reason:
            return False
        return self.device is None or any(device == self.device for _, device in dead_letter.devices())

    def _matches_id(self, dead_letter: DeadLetter) -> bool:
        prefix = self.dead_letter or ""
        return dead_letter.id == prefix or (len(prefix) >= MIN_ID_PREFIX and dead_letter.id.startswith(prefix))


# Called with how many dead letters were visited and how many of them matched.
Progress = Callable[[int, int], None]


async def select(browser: QueueBrowser, selector: Selector, progress: Progress) -> AsyncIterator[DeadLetter]:
    """Browse the queue and yield what matches; AmbiguousIdError, and nothing, when an id is ambiguous."""
    visited = found = 0
    matching: list[DeadLetter] = []
    async for delivery in browser:
        visited += 1
        dead_letter = DeadLetter(delivery)
        if selector.matches(dead_letter):
            found += 1
            if selector.dead_letter is None:
                yield dead_letter
            else:
                matching.append(dead_letter)
        progress(visited, found)
        if selector.limit is not None and found >= selector.limit and selector.dead_letter is None:
            return
    for dead_letter in _by_id(matching, selector.dead_letter or ""):
        yield dead_letter


def _by_id(matching: list[DeadLetter], prefix: str) -> list[DeadLetter]:
    """Return the one dead letter with this id, with all its copies, should the broker have made some."""
    exact = [dead_letter for dead_letter in matching if dead_letter.id == prefix]
    if len({dead_letter.id for dead_letter in matching}) > 1 and not exact:
        raise AmbiguousIdError(prefix, matching)
    return exact or matching


@dataclass(slots=True)
class OperationCounts:
    """How many dead letters were replayed or discarded, and skipped, so far; valid also after a failure."""

    done: int = 0
    skipped: int = 0


async def replay(
    broker: Broker, selector: Selector, *, rate: float, force: bool, progress: Progress, counts: OperationCounts
) -> None:
    """Publish the selected dead letters again, at most `rate` a second; stops at a BrokerError, the rest stays queued.

    One that would only be dead-lettered again is skipped, unless `force`, and does not count against the limit.
    """
    unlimited = replace(selector, limit=None)
    async with broker.publisher() as publisher, broker.browser(DEAD_LETTERS) as browser:
        next_at = time.monotonic()
        async for dead_letter in select(browser, unlimited, progress):
            if not force and dead_letter.decode_error() is not None:
                counts.skipped += 1
                continue
            await asyncio.sleep(next_at - time.monotonic())
            next_at = max(next_at, time.monotonic()) + 1 / rate
            await publisher.publish(dead_letter.for_replay(), dead_letter.source)
            await browser.settle(dead_letter.delivery)
            counts.done += 1
            if counts.done == selector.limit:
                return


async def discard(broker: Broker, selector: Selector, *, progress: Progress, counts: OperationCounts) -> None:
    """Delete the selected dead letters for good."""
    async with broker.browser(DEAD_LETTERS) as browser:
        async for dead_letter in select(browser, selector, progress):
            await browser.settle(dead_letter.delivery)
            counts.done += 1
