"""Dead letters for an operator: what they say about themselves, which ones are meant, and what may be done with them.

A letter comes from a service, which names its reason (`x-reason`), or from the broker itself, which has its own
(`delivery_limit`, `rejected`, …). Replaying publishes it to the readings again, confirmed, before it is settled here: a
crash between the two stores nothing twice, because a reading's identity is its key.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from broker.deleted_owner import DeletedOwner
from broker.interface import Broker, Delivery, QueueBrowser
from broker.live import live_readings
from broker.message import DecodeError, Header, Message
from broker.topology import DEAD_LETTERS, OWNERS_EXCHANGE, READINGS_EXCHANGE, Exchange
from readings.document import DocumentError

REPLAYS_HEADER = "x-replays"
# The services' (persister/metrics.py), RabbitMQ's (x-first-death-reason), and that of a letter without any.
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
# Where a letter that is no reading came from, and goes back to.
EXCHANGE_HEADER = "x-exchange"
# What a letter says about its death is not part of the message that it was.
_OF_DEATH = (
    "x-reason",
    "x-error",
    "x-service",
    "x-first-seen",
    "x-exchange",
    "x-death",
    "x-first-death-",
    "x-last-death-",
)


# So much of an id is enough to name a letter, where no other begins with it.
SHORTEST_ID = 6


class AmbiguousIdError(Exception):
    """The beginning of an id is that of several letters."""

    def __init__(self, wanted: str, letters: Sequence["DeadLetter"]) -> None:
        super().__init__(f"several dead letters begin with {wanted}")
        self.letters = letters


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter: what its headers and bytes say. Its place in the queue changes with every look into RabbitMQ."""

    delivery: Delivery = field(repr=False)

    @property
    def message(self) -> Message:
        """The message as it lies in the queue."""
        return self.delivery.message

    @property
    def id(self) -> str:
        """The message's id; of one that has none, a hash of its headers and bytes: both stay while it lies there."""
        if self.message.message_id:
            return self.message.message_id
        headers = json.dumps(sorted(self.message.headers.items())).encode()
        return hashlib.sha256(headers + b"\n" + self.message.body).hexdigest()[:32]

    @property
    def reason(self) -> str:
        """The service's reason, else the broker's."""
        return self._header("x-reason") or self._header("x-first-death-reason") or "unknown"

    @property
    def replays(self) -> int:
        """How often it was replayed and came back."""
        found = self.message.headers.get(REPLAYS_HEADER, 0)
        return found if isinstance(found, int) else 0

    @property
    def source(self) -> Exchange:
        """Where it is published to again."""
        return OWNERS_EXCHANGE if self._header(EXCHANGE_HEADER) == OWNERS_EXCHANGE.name else READINGS_EXCHANGE

    def devices(self) -> list[tuple[str, str]]:
        """Owner and device of each reading; empty when the bytes do not decode."""
        try:
            return [(reading.owner, reading.device) for reading in live_readings(self.message.body)]
        except DocumentError:
            return []

    def unreadable(self) -> str | None:
        """Why a persister of this version would bury it again at once, or None."""
        try:
            if self.source is OWNERS_EXCHANGE:
                DeletedOwner.of(self.message)
            else:
                self.message.documents()
        except DecodeError as error:
            return str(error)
        return None

    def summary(self) -> dict[str, Any]:
        """Return what a list shows of it."""
        devices = self.devices()
        return {
            "id": self.id,
            "reason": self.reason,
            "error": self._header("x-error"),
            "service": self._header("x-service") or "broker",
            "firstSeen": self._header("x-first-seen") or self._header("x-first-death-time"),
            "readings": len(devices),
            "owner": devices[0][0] if devices else None,
            "device": devices[0][1] if devices else None,
            "bytes": len(self.message.body),
            "replays": self.replays,
        }

    def revived(self) -> Message:
        """Return the message as it was before its death, with one more replay counted."""
        headers: dict[str, Header] = {
            name: value for name, value in self.message.headers.items() if not name.startswith(_OF_DEATH)
        }
        headers[REPLAYS_HEADER] = self.replays + 1
        return Message(self.message.body, headers)

    def _header(self, name: str) -> str | None:
        found = self.message.headers.get(name)
        return None if found is None else str(found)


@dataclass(frozen=True, slots=True)
class Selector:
    """Which letters are meant; a field that is None chooses all. `letter` is an id or the beginning of one."""

    reason: str | None = None
    device: str | None = None
    limit: int | None = None
    letter: str | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Say whether this letter is meant, the limit and the ambiguity of its id aside."""
        if self.letter is not None and not self._names(letter):
            return False
        if self.reason is not None and letter.reason != self.reason:
            return False
        return self.device is None or any(device == self.device for _, device in letter.devices())

    def _names(self, letter: DeadLetter) -> bool:
        wanted = self.letter or ""
        return letter.id == wanted or (len(wanted) >= SHORTEST_ID and letter.id.startswith(wanted))


# Told how many letters were looked at and how many of them were meant.
Progress = Callable[[int, int], None]


async def select(browser: QueueBrowser, choice: Selector, progress: Progress) -> AsyncIterator[DeadLetter]:
    """Go through the queue and give what is meant; SeveralError, and none, where an id is not clear."""
    looked = found = 0
    named: list[DeadLetter] = []
    async for delivery in browser:
        looked += 1
        letter = DeadLetter(delivery)
        if choice.takes(letter):
            found += 1
            if choice.letter is None:
                yield letter
            else:
                named.append(letter)
        progress(looked, found)
        if choice.limit is not None and found >= choice.limit and choice.letter is None:
            return
    for letter in _the_one(named, choice.letter or ""):
        yield letter


def _the_one(named: list[DeadLetter], wanted: str) -> list[DeadLetter]:
    """Return the one letter that is named, with all its copies, should the broker have made some."""
    exact = [letter for letter in named if letter.id == wanted]
    if len({letter.id for letter in named}) > 1 and not exact:
        raise AmbiguousIdError(wanted, named)
    return exact or named


@dataclass(slots=True)
class Outcome:
    """What has become of the chosen letters so far; it stands also when the rest fails."""

    done: int = 0
    left: int = 0


async def replay(
    broker: Broker, choice: Selector, *, rate: float, force: bool, progress: Progress, outcome: Outcome
) -> None:
    """Publish the chosen letters again, at most `rate` a second; BrokerError stops it, and what was not settled stays.

    A letter that would only be buried again is left, unless `force`, and does not count against the limit.
    """
    every = replace(choice, limit=None)
    async with broker.publisher() as publisher, broker.browser(DEAD_LETTERS) as browser:
        next_at = time.monotonic()
        async for letter in select(browser, every, progress):
            if not force and letter.unreadable() is not None:
                outcome.left += 1
                continue
            await asyncio.sleep(next_at - time.monotonic())
            next_at = max(next_at, time.monotonic()) + 1 / rate
            await publisher.publish(letter.revived(), letter.source)
            await browser.settle(letter.delivery)
            outcome.done += 1
            if outcome.done == choice.limit:
                return


async def discard(broker: Broker, choice: Selector, *, progress: Progress, outcome: Outcome) -> None:
    """Forget the chosen letters for good."""
    async with broker.browser(DEAD_LETTERS) as browser:
        async for letter in select(browser, choice, progress):
            await browser.settle(letter.delivery)
            outcome.done += 1
