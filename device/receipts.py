"""Readings that were accepted and wait for their receipt: that they are stored.

A receipt may be lost with its gateway. After 30 s without one the device asks for it, and again later, with longer and
longer waits; what is still not stored at the second question is sent again, which changes nothing if it is on its way.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from device.buffer import Buffer
from device.errors import NotNow
from device.reading import Row

ASK_AFTER_S = 30.0
ASK_AT_MOST_AFTER_S = 600.0
# After a question that was not answered.
NO_ANSWER_S = 10.0
MAX_ASKED = 1000

_log = logging.getLogger("device")

Identity = tuple[str, int, int]
# Takes the body of `POST /readings/stored`, and returns its answer's, or None where the server has no such call.
Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]]


class _Question(NamedTuple):
    due: float
    asked: int
    identities: list[Identity]


class Receipts:
    """`on_stored` gets ids of readings that are stored, `on_missing` readings that have to be sent again."""

    def __init__(
        self, buffer: Buffer, ask: Ask, on_stored: Callable[[list[int]], None], on_missing: Callable[[list[Row]], None]
    ) -> None:
        self._buffer = buffer
        self._ask = ask
        self._on_stored = on_stored
        self._on_missing = on_missing
        self._waiting: dict[Identity, int] = {}
        self._questions: deque[_Question] = deque()
        self._asked: dict[Identity, int] = {}
        self._asking: asyncio.Task[None] | None = None
        self._ask_from = 0.0
        self.supported = True

    def accepted(self, rows: list[Row]) -> None:
        """Wait for the receipts of these; a second one of the same identity is the same reading."""
        freed: list[int] = []
        identities: list[Identity] = []
        for row in rows:
            if not self.supported or row.ts is None or row.seq is None:
                freed.append(row.id)
                continue
            identity = (self._buffer.series_of(row), row.ts, row.seq)
            if identity in self._waiting:
                freed.append(row.id)
            else:
                self._waiting[identity] = row.id
                identities.append(identity)
        if identities:
            asked = max((self._asked.pop(identity, 0) for identity in identities), default=0)
            self._questions.append(_Question(time.monotonic() + _wait_s(asked), asked, identities))
        if freed:
            self._on_stored(freed)

    def stored(self, event: Any) -> None:
        """Take a `stored` event, or the answer to a question."""
        found = [self._waiting.pop(identity) for identity in _identities(event) if identity in self._waiting]
        if found:
            self._on_stored(found)

    def oldest(self) -> Row | None:
        """Return the oldest reading that waits, without its JSON's being kept in memory."""
        number = next(iter(self._waiting.values()), None)
        rows = [] if number is None else self._buffer.with_ids([number])
        return rows[0] if rows else None

    def discard(self, row: Row) -> None:
        """Do not wait for this one any more."""
        if row.ts is not None and row.seq is not None:
            self._waiting.pop((self._buffer.series_of(row), row.ts, row.seq), None)

    def check(self) -> None:
        """Ask for receipts that are late, one question at a time; call it about once a second."""
        now = time.monotonic()
        if now < self._ask_from or (self._asking is not None and not self._asking.done()):
            return
        due = [one for one in self._questions if one.due <= now]
        if due:
            self._asking = asyncio.create_task(self._ask_for(due))

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    async def _ask_for(self, due: list[_Question]) -> None:
        for question in due:
            for start in range(0, len(question.identities), MAX_ASKED):
                missing = [one for one in question.identities[start : start + MAX_ASKED] if one in self._waiting]
                if missing and not await self._answered(missing):
                    return
            self._questions.remove(question)
            self._ask_later(question)

    async def _answered(self, missing: list[Identity]) -> bool:
        """Ask for these; returns False if there was no answer, so that the question stays."""
        try:
            answer = await self._ask(_question(missing))
        except NotNow as error:
            _log.info("The server was asked for receipts and did not answer: %s", error)
            self._ask_from = time.monotonic() + NO_ANSWER_S * random.uniform(0.5, 1.0)
            return False
        if answer is None:
            self.supported = False
            _log.warning("This server sends no receipts: readings are freed when they are accepted")
            freed = list(self._waiting.values())
            self._waiting.clear()
            self._questions.clear()
            self._on_stored(freed)
            return False
        self.stored(answer)
        return True

    def _ask_later(self, question: _Question) -> None:
        missing = [one for one in question.identities if one in self._waiting]
        asked = question.asked + 1
        if not missing:
            return
        if asked == 1:
            self._questions.append(_Question(time.monotonic() + ASK_AFTER_S, asked, missing))
            return
        self._asked.update((identity, asked) for identity in missing)
        self._on_missing(self._buffer.with_ids([self._waiting.pop(identity) for identity in missing]))


def _wait_s(asked: int) -> float:
    return min(ASK_AFTER_S * float(2**asked), ASK_AT_MOST_AFTER_S)


def _question(identities: Iterable[Identity]) -> dict[str, Any]:
    series: dict[str, list[tuple[int, int]]] = {}
    for name, ts, seq in identities:
        series.setdefault(name, []).append((ts, seq))
    return {"items": [{"sensorType": name, "readings": readings} for name, readings in series.items()]}


def _identities(event: Any) -> list[Identity]:
    """Return what an event lists; nothing of what is not in its form."""
    items = event.get("items") if isinstance(event, dict) else None
    found: list[Identity] = []
    for item in items if isinstance(items, list) else ():
        readings = item.get("readings") if isinstance(item, dict) else None
        pairs = [one for one in readings if _is_pair(one)] if isinstance(readings, list) else []
        found += [(str(item.get("sensorType")), ts, seq) for ts, seq in pairs]
    return found


def _is_pair(one: Any) -> bool:
    return isinstance(one, list) and len(one) == 2 and all(type(number) is int for number in one)
