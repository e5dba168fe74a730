"""Readings that were accepted and wait for their receipt: that they are stored.

A receipt may be lost with its gateway. After 30 s without one the device asks for it, and again later, with longer and
longer waits; what is still not stored at the second question is sent again, which changes nothing if it is on its way.
One that is accepted again and again and never stored has become a dead letter: it is given up after some four hours.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from device.buffer import Buffer
from device.errors import BufferFailed, NotNow
from device.identity import MAX_ASKED, Ask, Identity, identities, question
from device.reading import Row

ASK_AFTER_S = 30.0
ASK_AT_MOST_AFTER_S = 600.0
# After a question that was not answered.
NO_ANSWER_S = 10.0
# Times that a reading is sent again, each after an answer that does not list it: 10 minutes apart, most of them.
MAX_MISSED = 24
# Those that had to be sent again more often are not kept when they are stored: somebody removes them there.
MAX_MISSED_KEPT = 3

_log = logging.getLogger("device")


class _Question(NamedTuple):
    due: float
    first: bool
    identities: list[Identity]


class Settle(NamedTuple):
    """What becomes of readings: they leave the buffer, are kept in it, are sent again, or reported as rejected."""

    free: Callable[[list[int]], None]
    keep: Callable[[list[int]], None]
    send_again: Callable[[list[Row]], None]
    # With a code and a detail.
    reject: Callable[[Row, str, str], None]


class Receipts:
    """Each reading that was accepted ends in one of the calls of a Settle."""

    def __init__(self, buffer: Buffer, ask: Ask, settle: Settle, in_flight: Callable[[], Iterable[Row]]) -> None:
        self._buffer = buffer
        self._in_flight = in_flight
        self._ask = ask
        self._settle = settle
        self._waiting: dict[Identity, int] = {}
        # Those in flight whose receipt came before their acknowledgement.
        self._early: set[Identity] = set()
        self._questions: deque[_Question] = deque()
        # How often each had to be sent again, by id.
        self._missed = buffer.missed()
        self._asking: asyncio.Task[None] | None = None
        self._ask_from = 0.0
        self.supported = True
        # Whether one has come: then the server has receipts, whatever a single answer says.
        self._have_come = False

    def accepted(self, rows: list[Row]) -> None:
        """Wait for the receipts of these; a second one of the same identity is the same reading."""
        freed: list[int] = []
        early: list[int] = []
        new: list[Identity] = []
        most = 0
        for row in rows:
            identity = self._identity_of(row) if self.supported else None
            if identity is None or identity in self._waiting:
                freed.append(row.id)
            elif identity in self._early:
                self._early.discard(identity)
                early.append(row.id)
            else:
                self._waiting[identity] = row.id
                new.append(identity)
                most = max(most, self._missed.get(row.id, 0)) if self._missed else 0
        if new:
            self._questions.append(_Question(time.monotonic() + _wait_s(most), not most, new))
        if freed:
            self._settle.free(freed)
        if early:
            self._found(early)

    def stored(self, event: Any) -> None:
        """Take a `stored` event, or the answer to a question."""
        listed = identities(event)
        self._have_come = self._have_come or bool(listed)
        known = [identity for identity in listed if identity in self._waiting]
        if len(known) < len(listed):
            self._remember_early(listed)
        self._found([self._waiting.pop(identity) for identity in dict.fromkeys(known)])

    def _remember_early(self, listed: list[Identity]) -> None:
        """Note which of these are in flight: a receipt may come before the acknowledgement of its event."""
        sent = set(map(self._identity_of, self._in_flight()))
        self._early = {one for one in self._early.union(listed) if one in sent}

    def _identity_of(self, row: Row) -> Identity | None:
        """Return the identity by which a receipt names a reading; None for one that the server will not take."""
        if row.ts is None or row.seq is None:
            return None
        return self._buffer.series_of(row), row.ts, row.seq

    def _found(self, found: list[int]) -> None:
        """Settle readings that are stored."""
        if self._missed:
            removed = [number for number in found if self._missed.pop(number, 0) >= MAX_MISSED_KEPT]
            self._settle.free(removed)
            found = [number for number in found if number not in set(removed)]
        if found:
            self._settle.keep(found)

    async def ask(self, about: dict[str, Any]) -> Any:
        """Ask which of some readings are stored; None: the server has no receipts. Raises NotNow."""
        answer = await self._ask(about)
        if answer is None and self._have_come:
            raise NotNow("a server that has sent receipts does not know the call")
        return answer

    def returned(self) -> None:
        """Note that some that were kept are pending again, as they are not stored any more."""
        self._missed |= self._buffer.missed()

    @property
    def oldest_id(self) -> int | None:
        """The id of the oldest reading that waits."""
        return next(iter(self._waiting.values()), None)

    def oldest(self) -> Row | None:
        """Return the oldest reading that waits, read from the file."""
        number = self.oldest_id
        rows = [] if number is None else self._buffer.with_ids([number])
        return rows[0] if rows else None

    def discard(self, row: Row) -> None:
        """Wait no longer for this one."""
        self._missed.pop(row.id, None)
        if (identity := self._identity_of(row)) is not None:
            self._waiting.pop(identity, None)

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
        for one in due:
            for start in range(0, len(one.identities), MAX_ASKED):
                missing = self._still_waiting(one.identities[start : start + MAX_ASKED])
                if missing and not await self._answered(missing):
                    return
            if missing := self._still_waiting(one.identities):
                if one.first:
                    self._questions.append(_Question(time.monotonic() + ASK_AFTER_S, False, missing))
                elif not self._send_again(missing):
                    return
            self._questions.remove(one)

    def _still_waiting(self, some: list[Identity]) -> list[Identity]:
        return [identity for identity in some if identity in self._waiting]

    async def _answered(self, missing: list[Identity]) -> bool:
        """Ask for these; returns False if there was no answer, so that the question stays."""
        try:
            answer = await self.ask(question(missing))
        except NotNow as error:
            _log.info("The server was asked for receipts and did not answer: %s", error)
            self._ask_later(error.retry_after_s)
            return False
        if answer is None:
            self.supported = False
            _log.warning("This server sends no receipts: readings are freed when they are accepted")
            freed = list(self._waiting.values())
            self._waiting.clear()
            self._questions.clear()
            self._settle.free(freed)
            return False
        self.stored(answer)
        return True

    def _ask_later(self, after_s: float = 0.0) -> None:
        self._ask_from = time.monotonic() + max(NO_ANSWER_S * random.uniform(0.5, 1.0), after_s)

    def _send_again(self, missing: list[Identity]) -> bool:
        """Send these again, or give them up; returns False if the buffer cannot be read: then they wait on."""
        try:
            rows = self._buffer.with_ids(self._waiting[identity] for identity in missing)
        except BufferFailed as error:
            _log.warning("Readings without a receipt could not be read: %s", error)
            self._ask_later()
            return False
        ids = [self._waiting.pop(identity) for identity in missing]
        for number in ids:
            self._missed[number] = self._missed.get(number, 0) + 1
        self._buffer.count_missed(ids)
        given_up = {number for number in ids if self._missed[number] > MAX_MISSED}
        self._settle.send_again([row for row in rows if row.id not in given_up])
        for row in (row for row in rows if row.id in given_up):
            del self._missed[row.id]
            self._settle.reject(row, "not_stored", f"accepted {MAX_MISSED + 1} times and never stored")
        return True


def _wait_s(missed: int) -> float:
    return min(ASK_AFTER_S * float(2 ** (missed + 1 if missed else 0)), ASK_AT_MOST_AFTER_S)
