"""A batch: the documents of several messages, written at once, and the outcome of each."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from broker.interface import Delivery
from broker.message import DecodeError

# Dead-letter a message unread after this many deliveries. Crashes of workers and lost connections count, so a good
# message has to survive many.
MAX_DELIVERIES = 100


class Outcome(Enum):
    """The outcome of one reading. RETRY is transient: the document is written again until it has a final outcome."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    DEAD = "dead"
    # Its owner is deleted, so it is not stored.
    ERASED = "erased"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Unstorable:
    """Bytes to be dead-lettered, a whole message or one of its documents, with the `x-reason` and the error."""

    body: bytes = field(repr=False)
    reason: str
    error: str


@dataclass(slots=True)
class BatchedDelivery:
    """One delivery of a batch: its documents are `Batch.documents[start:end]`; `unstorable` is what is dead of it."""

    delivery: Delivery
    start: int
    end: int
    unstorable: list[Unstorable]


class Batch:
    """Deliveries in the order of their arrival, and their documents, each with an outcome.

    An index is a document's position in `documents` and `outcomes`.
    """

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        """Decode the messages; one that does not decode is dead as a whole, and its bytes are kept."""
        self.deliveries: list[BatchedDelivery] = []
        self.documents: list[bytes] = []
        self._times: list[int] = []
        # The indexes of each series' documents, in the order of arrival, by the bytes that name the series. Documents
        # whose key has another form are under b"".
        self.series: defaultdict[bytes, list[int]] = defaultdict(list)
        for delivery in deliveries:
            start = len(self.documents)
            unstorable = []
            try:
                self._add_documents(delivery, start)
            except DecodeError as error:
                unstorable.append(Unstorable(error.body, error.reason, str(error)))
            self.deliveries.append(BatchedDelivery(delivery, start, len(self.documents), unstorable))
        self.outcomes = [Outcome.RETRY] * len(self.documents)

    def _add_documents(self, delivery: Delivery, start: int) -> None:
        """Add the documents of a message; DecodeError if it is dead as a whole."""
        if delivery.delivery_count >= MAX_DELIVERIES:  # not decoded: that may be what kills the workers
            delivery.message.check_schema()
            why = f"delivered {delivery.delivery_count} times and never settled"
            raise DecodeError("too_often", why, delivery.message.body)
        indexed = delivery.message.index_documents()
        self.documents += indexed.documents
        self._times += indexed.times
        for index, name in enumerate(indexed.series, start):
            self.series[name].append(index)

    def mark_dead(self, index: int, reason: str, error: str) -> None:
        """Give one document the outcome DEAD, and note it for the dead letters of its message."""
        self.outcomes[index] = Outcome.DEAD
        # A delivery without documents has the start of the next one: the last delivery with a start holds the document.
        at = bisect_right(self.deliveries, index, key=lambda delivery: delivery.start) - 1
        self.deliveries[at].unstorable.append(Unstorable(self.documents[index], reason, error))

    def set_outcomes(self, indexes: Sequence[int], outcomes: list[Outcome]) -> None:
        """Set the outcomes of the documents at these indexes."""
        if outcomes.count(Outcome.STORED) == len(self.outcomes):  # nearly always
            self.outcomes = outcomes
            return
        for index, outcome in zip(indexes, outcomes, strict=True):
            self.outcomes[index] = outcome

    def pending(self) -> list[int]:
        """Return the indexes of the documents without a final outcome, by series, and in a series as they arrived."""
        indexes = [index for name in sorted(self.series) for index in self.series[name]]
        if self.outcomes.count(Outcome.RETRY) == len(indexes):
            return indexes
        return [index for index in indexes if self.outcomes[index] is Outcome.RETRY]

    def pending_redelivered(self) -> list[int]:
        """Return the indexes of the documents without a final outcome whose message was delivered before."""
        return [
            index
            for batched in self.deliveries
            if batched.delivery.delivery_count > 0
            for index in range(batched.start, batched.end)
            if self.outcomes[index] is Outcome.RETRY
        ]

    def newest(self) -> dict[bytes, tuple[int, bytes]]:
        """Return the time in ms and the document of the newest reading stored in each series; of equals the last."""
        newest: dict[bytes, tuple[int, bytes]] = {}
        documents, times, outcomes = self.documents, self._times, self.outcomes
        all_stored = outcomes.count(Outcome.STORED) == len(outcomes)
        for name, indexes in self.series.items():
            stored = indexes if all_stored else [index for index in indexes if outcomes[index] is Outcome.STORED]
            if stored:
                last = stored[0]
                for index in stored:
                    if times[index] >= times[last]:
                        last = index
                newest[name] = times[last], documents[last]
        return newest

    def results(self) -> Iterator[tuple[BatchedDelivery, list[bytes], list[Outcome]]]:
        """Yield each delivery with its documents and their outcomes."""
        for batched in self.deliveries:
            part = slice(batched.start, batched.end)
            yield batched, self.documents[part], self.outcomes[part]
