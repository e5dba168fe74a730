"""Writes documents, and where the server does not take all of them, finds those that are to blame.

A code that can only mean a document is believed at once. Any other might as well mean the server, so it counts against
a document only when the server refused it, then stored something else, and refused it again with the same code. Until
then it is held, as in an outage; so a server that refuses everything kills nothing.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from persister.batch import Outcome
from persister.retry import Holding
from persister.to_mongodb import WriteFailed, WriteRefused, Written

# While nothing was stored, so many refusals are enough for one attempt: a server that takes nothing is not to be asked
# once for each of 4,000 documents.
TRIES = 32


class Store(Protocol):
    """Where documents are written."""

    async def write(self, documents: Sequence[bytes]) -> Written:
        """Store documents; WriteFailed, WriteRefused."""


class Sifter:
    """Writes for one worker, whose successes are the proof that the server takes documents."""

    def __init__(self, store: Store, holding: Holding) -> None:
        self._store = store
        self._holding = holding
        # How many documents the server has stored.
        self.stored = 0

    async def write(
        self, documents: Sequence[bytes], in_doubt: Callable[[], None], holding: Holding | None = None
    ) -> Written:
        """Return the outcome of every document. `in_doubt` is called when that needs the success of other writes.

        `holding`: of these documents, when they have a deadline of their own.
        """
        sifting = _Sifting(self, documents, in_doubt)
        return await (holding or self._holding).until_done("readings", sifting.attempt)

    async def attempt(self, documents: Sequence[bytes]) -> Written:
        """Write once."""
        written = await self._store.write(documents)
        self.stored += written.outcomes.count(Outcome.STORED)
        return written


class _Sifting:
    """One write, over as many attempts as it takes; what has an outcome is not written again."""

    def __init__(self, sifter: Sifter, documents: Sequence[bytes], in_doubt: Callable[[], None]) -> None:
        self._sifter = sifter
        self._documents = documents
        self._in_doubt = in_doubt
        self._outcomes = [Outcome.RETRY] * len(documents)
        self._errors: dict[int, str] = {}
        # By document: the code that it is refused with, and how much was stored when that was first said.
        self._accused: dict[int, tuple[int, int]] = {}
        self._stored_at_first = sifter.stored
        self._all_taken = False
        # Refusals of this pass that do not say whose fault it is, and the last of them.
        self._doubtful = 0
        self._last_words = ""

    async def attempt(self) -> Written:
        """Give every document an outcome, or raise WriteFailed: to be called again, later."""
        while left := self._left():
            stored, self._doubtful = self._sifter.stored, 0
            await self._halve(left)
            if self._sifter.stored == stored:
                # Where bad ones stand close together, halves find no good one; chance does.
                some = self._left()
                for index in random.sample(some, min(TRIES, len(some))):
                    await self._ask([index])
            if self._sifter.stored == stored and len(self._left()) == len(left):
                self._in_doubt()
                raise WriteFailed(f"refused, and so may be everything: {self._last_words}")
        return Written(self._outcomes, self._errors)

    def _left(self) -> Sequence[int]:
        if not self._accused:
            return () if self._all_taken else range(len(self._documents))
        return [index for index, outcome in enumerate(self._outcomes) if outcome is Outcome.RETRY]

    async def _halve(self, left: Sequence[int]) -> None:
        """Write all that is left, and what is refused in halves, large ones first."""
        parts = deque([left])
        while parts:
            part = parts.popleft()
            suspects = await self._ask(part)
            if self._doubtful >= TRIES and self._sifter.stored == self._stored_at_first:
                return
            if len(part) > 1 and suspects:
                half = (len(suspects) + 1) // 2
                parts += [some for some in (suspects[:half], suspects[half:]) if some]

    async def _ask(self, part: Sequence[int]) -> Sequence[int]:
        """Write these in one go; return those that may be to blame for a refusal."""
        whole = len(part) == len(self._documents)
        try:
            written = await self._sifter.attempt(
                self._documents if whole else [self._documents[index] for index in part]
            )
        except WriteRefused as error:
            self._doubtful += not error.certain
            alone, stored = len(part) == 1, self._sifter.stored
            for index in part:
                self._accuse(index, error.code, str(error), stored, alone=alone, certain=error.certain)
            return [index for index in part if self._outcomes[index] is Outcome.RETRY]
        if whole and not written.doubts:  # as nearly always: nothing is looked at one by one
            self._outcomes, self._errors, self._all_taken = written.outcomes, written.errors, True
            self._accused.clear()
            return ()
        stored_after = 0
        for place in range(len(part) - 1, -1, -1):
            self._outcomes[part[place]] = written.outcomes[place]
            if place in written.doubts:
                # Those behind it were stored after it was refused: the server goes through them in order.
                before = self._sifter.stored - stored_after
                self._accuse(part[place], written.doubts[place], written.errors[place], before, alone=len(part) == 1)
            stored_after += written.outcomes[place] is Outcome.STORED
        self._doubtful += bool(written.doubts)
        self._errors |= {part[place]: words for place, words in written.errors.items() if place not in written.doubts}
        return [part[place] for place in written.doubts if self._outcomes[part[place]] is Outcome.RETRY]

    def _accuse(self, index: int, code: int, words: str, stored: int, *, alone: bool, certain: bool = False) -> None:
        """Note a refusal, and how much was stored before it; it is dead when that is enough."""
        self._last_words = words
        if self._accused.get(index, (None, 0))[0] != code:
            self._accused[index] = (code, stored)
        if alone and (certain or stored > self._accused[index][1]):
            self._outcomes[index] = Outcome.DEAD
            self._errors[index] = words
