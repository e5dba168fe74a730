"""What is written at once: the documents of several messages, and what became of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from broker.interface import Delivery
from broker.message import DecodeError


class Outcome(Enum):
    """What became of one reading. A retry is no outcome that anyone settles on: it is tried until it is another."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    DEAD = "dead"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Bytes that cannot be stored, why, and whether they still have a message's form."""

    body: bytes = field(repr=False)
    reason: str
    error: str
    readable: bool


@dataclass(slots=True)
class Batch:
    """Deliveries in the order of arrival, their documents, and the letters that could not be read at all."""

    deliveries: list[Delivery]
    documents: list[bytes]
    # Where each delivery's documents begin; it ends where the next one's begin.
    starts: list[int]
    dead: list[DeadLetter]

    @classmethod
    def of(cls, deliveries: Sequence[Delivery]) -> "Batch":
        """Open the messages; one that does not decode is dead as a whole, its bytes kept."""
        batch = cls(list(deliveries), [], [], [])
        for delivery in deliveries:
            batch.starts.append(len(batch.documents))
            try:
                batch.documents += delivery.message.documents()
            except DecodeError as error:
                batch.dead.append(DeadLetter(error.body, error.reason, str(error), readable=False))
        return batch
