"""Finds the documents that are to blame when MongoDB refuses a write. Ordinary writes never come here.

A code that can only mean the document is believed at once. Any other code may mean the server, so it counts against a
document only if the server refused that document, then stored something else, and then refused the document again with
the same code. Until then the document is retried, as in an outage: if the server refuses everything, no document is
dead-lettered.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from persister.batch import Outcome
from persister.mongodb_errors import WriteFailed, WriteRefused
from persister.retry import Retrier
from persister.to_mongodb import Written

# While nothing is stored, an attempt ends after this many ambiguous refusals: a server that takes nothing is not asked
# once for each of 4,000 documents.
MAX_AMBIGUOUS_REFUSALS = 32


class Store(Protocol):
    """Where documents are written."""

    async def write(self, documents: Sequence[bytes]) -> Written:
        """Store documents; WriteFailed, WriteRefused."""


class PoisonIsolator:
    """Isolates poison for one worker. Any write that stores something proves that the server takes documents."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # The number of documents that this worker has stored: every successful write adds to it.
        self.stored = 0

    async def isolate(
        self,
        documents: Sequence[bytes],
        first: Written | WriteRefused,
        on_ambiguous: Callable[[], None],
        retrier: Retrier,
    ) -> Written:
        """Return the outcome of every document, never RETRY; StoppedError, HeldTooLongError.

        `first`: how the write of all of them ended. `on_ambiguous` is called whenever only the success of other writes
        can decide.
        """
        isolation = _Isolation(self, documents, first, on_ambiguous)
        return await retrier.run("readings", isolation.attempt)

    async def write(self, documents: Sequence[bytes]) -> Written:
        """Write once, and count what was stored."""
        written = await self._store.write(documents)
        self.stored += written.outcomes.count(Outcome.STORED)
        return written


class _Isolation:
    """One batch, over as many attempts as it takes. A document that has an outcome is not written again."""

    def __init__(
        self,
        isolator: PoisonIsolator,
        documents: Sequence[bytes],
        first: Written | WriteRefused,
        on_ambiguous: Callable[[], None],
    ) -> None:
        self._isolator = isolator
        self._documents = documents
        self._first: Written | WriteRefused | None = first
        self._on_ambiguous = on_ambiguous
        self._outcomes = [Outcome.RETRY] * len(documents)
        self._errors: dict[int, str] = {}
        # By document: the code of its refusal, and how much had been stored when it was first refused with that code.
        self._suspects: dict[int, tuple[int, int]] = {}
        stored_by_first = 0 if isinstance(first, WriteRefused) else first.outcomes.count(Outcome.STORED)
        # How much had been stored when this began, and when the present pass began.
        self._stored_before = self._stored_before_pass = isolator.stored - stored_by_first
        # The ambiguous refusals of the present pass, and the last error.
        self._ambiguous = 0
        self._last_error = ""

    async def attempt(self) -> Written:
        """Give every document an outcome; WriteFailed if that is not possible yet: call it again, later."""
        while pending := self._pending():
            self._ambiguous = 0
            if self._first is None:
                self._stored_before_pass = self._isolator.stored
            await self._bisect(pending)
            if not self._has_stored():
                # Where poison lies close together, no half is good; a random choice finds a good one.
                rest = self._pending()
                for index in random.sample(rest, min(MAX_AMBIGUOUS_REFUSALS, len(rest))):
                    await self._write([index])
            if not self._has_stored() and len(self._pending()) == len(pending):
                self._on_ambiguous()
                raise WriteFailed(f"refused, by the fault of documents or of the server: {self._last_error}")
        return Written(self._outcomes, self._errors)

    def _has_stored(self) -> bool:
        """Return whether this worker has stored anything since the present pass began."""
        return self._isolator.stored != self._stored_before_pass

    def _pending(self) -> list[int]:
        return [index for index, outcome in enumerate(self._outcomes) if outcome is Outcome.RETRY]

    async def _bisect(self, pending: Sequence[int]) -> None:
        """Write what is pending, and what is refused again in halves, large parts first."""
        parts = deque([pending])
        while parts:
            part = parts.popleft()
            suspects = await self._write(part)
            if self._ambiguous >= MAX_AMBIGUOUS_REFUSALS and self._isolator.stored == self._stored_before:
                return
            if len(part) > 1 and suspects:
                half = (len(suspects) + 1) // 2
                parts += [some for some in (suspects[:half], suspects[half:]) if some]

    async def _write(self, part: Sequence[int]) -> Sequence[int]:
        """Write these documents at once; return those that may be to blame for a refusal."""
        try:
            written = await self._next_result(part)
        except WriteRefused as error:
            self._ambiguous += not error.certain
            alone, stored = len(part) == 1, self._isolator.stored
            for index in part:
                self._suspect(index, error.code, str(error), stored, alone=alone, certain=error.certain)
            return [index for index in part if self._outcomes[index] is Outcome.RETRY]
        stored_after = 0
        for position in range(len(part) - 1, -1, -1):
            self._outcomes[part[position]] = written.outcomes[position]
            if position in written.ambiguous:
                # Those after it were stored after its refusal: the server takes documents in their order.
                before = self._isolator.stored - stored_after
                code, error_text = written.ambiguous[position], written.errors[position]
                self._suspect(part[position], code, error_text, before, alone=len(part) == 1)
            stored_after += written.outcomes[position] is Outcome.STORED
        self._ambiguous += bool(written.ambiguous)
        self._errors |= {
            part[position]: text for position, text in written.errors.items() if position not in written.ambiguous
        }
        return [part[position] for position in written.ambiguous if self._outcomes[part[position]] is Outcome.RETRY]

    async def _next_result(self, part: Sequence[int]) -> Written:
        """Return the result of the first write, once, and from then on write the documents."""
        first, self._first = self._first, None
        if isinstance(first, WriteRefused):
            raise first
        if first is not None:
            return first
        return await self._isolator.write([self._documents[index] for index in part])

    def _suspect(self, index: int, code: int, error: str, stored: int, *, alone: bool, certain: bool = False) -> None:
        """Note a refusal and how much had been stored before it; the document is dead if that is proof enough."""
        self._last_error = error
        if self._suspects.get(index, (None, 0))[0] != code:
            self._suspects[index] = (code, stored)
        if alone and (certain or stored > self._suspects[index][1]):
            self._outcomes[index] = Outcome.DEAD
            self._errors[index] = error
