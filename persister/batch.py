"""What is written at once: the documents of several messages, and what became of each."""

from bisect import bisect_right
from collections import defaultdict
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
        self._times: list[int] = []
        # The places of each series' documents, in the order of arrival, by the bytes that name the series; those of
        # documents whose key has another form stand under no bytes at all.
        self.series: defaultdict[bytes, list[int]] = defaultdict(list)
        for delivery in deliveries:
            start = len(self.documents)
            letters = []
            try:
                self._open(delivery, start)
            except DecodeError as error:
                letters.append(DeadLetter(error.body, error.reason, str(error)))
            self.opened.append(Opened(delivery, start, len(self.documents), letters))
        self.outcomes = [Outcome.RETRY] * len(self.documents)

    def _open(self, delivery: Delivery, start: int) -> None:
        """Take the documents of a message; DecodeError when it is dead as a whole."""
        if delivery.delivery_count >= TOO_OFTEN:  # not decoded: that may be what ends the workers
            delivery.message.check_schema()
            why = f"delivered {delivery.delivery_count} times and never settled"
            raise DecodeError("too_often", why, delivery.message.body)
        cut = delivery.message.index_documents()
        self.documents += cut.documents
        self._times += cut.times
        for place, name in enumerate(cut.series, start):
            self.series[name].append(place)

    def bury(self, index: int, reason: str, error: str) -> None:
        """Make one document dead."""
        self.outcomes[index] = Outcome.DEAD
        # Deliveries without documents begin where the next one does: the last of them holds the document.
        at = bisect_right(self.opened, index, key=lambda opened: opened.start) - 1
        self.opened[at].letters.append(DeadLetter(self.documents[index], reason, error))

    def settle(self, places: Sequence[int], outcomes: list[Outcome]) -> None:
        """Note what became of the documents at these places."""
        if outcomes.count(Outcome.STORED) == len(self.outcomes):  # as nearly always
            self.outcomes = outcomes
            return
        for place, outcome in zip(places, outcomes, strict=True):
            self.outcomes[place] = outcome

    def waiting(self) -> list[int]:
        """Return the places of what has no outcome yet, each series together, its own as they arrived."""
        places = [place for name in sorted(self.series) for place in self.series[name]]
        if self.outcomes.count(Outcome.RETRY) == len(places):
            return places
        return [place for place in places if self.outcomes[place] is Outcome.RETRY]

    def waiting_again(self) -> list[int]:
        """Return the places of what has no outcome yet and was delivered before."""
        return [
            place
            for opened in self.opened
            if opened.delivery.delivery_count > 0
            for place in range(opened.start, opened.end)
            if self.outcomes[place] is Outcome.RETRY
        ]

    def newest(self) -> dict[bytes, tuple[int, bytes]]:
        """Return the newest document of each series that was stored, and its time in ms; of equals the last one."""
        newest: dict[bytes, tuple[int, bytes]] = {}
        times, outcomes = self._times, self.outcomes
        all_stored = outcomes.count(Outcome.STORED) == len(outcomes)
        for name, places in self.series.items():
            stored = places if all_stored else [place for place in places if outcomes[place] is Outcome.STORED]
            if stored:
                place = stored[0] if len(stored) == 1 else max(reversed(stored), key=times.__getitem__)
                newest[name] = times[place], self.documents[place]
        return newest

    def results(self) -> Iterator[tuple[Opened, list[bytes], list[Outcome]]]:
        """Give each delivery with its documents and their outcomes."""
        for opened in self.opened:
            part = slice(opened.start, opened.end)
            yield opened, self.documents[part], self.outcomes[part]
