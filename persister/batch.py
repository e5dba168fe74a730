"""What is written at once: the documents of several messages, and what became of each."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from broker.interface import Delivery
from broker.message import DecodeError

# A message that was delivered so often and never settled is not tried again. Crashes of workers and lost connections
# count, so a good message must survive many.
TOO_OFTEN = 100


class Outcome(Enum):
    """What became of one reading. A retry is no outcome that anyone settles on: it is tried until it is another."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    DEAD = "dead"
    # Of an owner who is deleted: nobody wants it any more.
    ERASED = "erased"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Bytes that cannot be stored, and why: a whole message, or documents out of one."""

    body: bytes = field(repr=False)
    reason: str
    error: str


@dataclass(slots=True)
class Opened:
    """One delivery of a batch: where its documents begin and end, and what of it is dead."""

    delivery: Delivery
    start: int
    end: int
    letters: list[DeadLetter]


class Batch:
    """Deliveries in the order of arrival, opened, with an outcome for each of their documents."""

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        """Open the messages; one that does not decode is dead as a whole, its bytes kept."""
        self.opened: list[Opened] = []
        self.documents: list[bytes] = []
        for delivery in deliveries:
            start = len(self.documents)
            letters = []
            try:
                documents = delivery.message.documents()
            except DecodeError as error:
                letters.append(DeadLetter(error.body, error.reason, str(error)))
            else:
                if delivery.delivery_count >= TOO_OFTEN:
                    why = f"delivered {delivery.delivery_count} times and never settled"
                    letters.append(DeadLetter(delivery.message.body, "too_often", why))
                else:
                    self.documents += documents
            self.opened.append(Opened(delivery, start, len(self.documents), letters))
        self.outcomes = [Outcome.RETRY] * len(self.documents)
        # The bytes that name each document's series; empty where they were not found.
        self.series = [b""] * len(self.documents)

    def bury(self, index: int, reason: str, error: str) -> None:
        """Make one document dead."""
        self.outcomes[index] = Outcome.DEAD
        # Deliveries without documents begin where the next one does: the last of them holds the document.
        at = bisect_right(self.opened, index, key=lambda opened: opened.start) - 1
        self.opened[at].letters.append(DeadLetter(self.documents[index], reason, error))

    def waiting(self, *, redelivered: bool) -> list[int]:
        """Return the documents that have no outcome yet, of deliveries that came for the first time or not."""
        return [
            index
            for opened in self.opened
            if (opened.delivery.delivery_count > 0) is redelivered
            for index in range(opened.start, opened.end)
            if self.outcomes[index] is Outcome.RETRY
        ]

    def results(self) -> Iterator[tuple[Opened, list[bytes], list[Outcome]]]:
        """Give each delivery with its documents and their outcomes."""
        for opened in self.opened:
            part = slice(opened.start, opened.end)
            yield opened, self.documents[part], self.outcomes[part]
