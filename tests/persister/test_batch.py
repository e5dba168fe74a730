"""A batch: its pending documents, the outcome of each, and the newest stored one of a series."""

from collections.abc import Sequence
from itertools import groupby, permutations

import pytest

from broker.interface import Delivery
from broker.message import Message
from persister.batch import MAX_DELIVERIES, Batch, BatchedDelivery, Outcome, Unstorable
from readings.document import encode_document, series_bytes
from readings.reading import Reading

STORED, DUPLICATE, DEAD = Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD
ERASED, RETRY = Outcome.ERASED, Outcome.RETRY
NOT_STORED = [DUPLICATE, DEAD, ERASED, RETRY]

TORN = Message(b"\xff\xff")


def document(sensor_type: str, ts_ms: int, seq: int = 0) -> bytes:
    return encode_document("owner", "device", Reading(sensor_type, 1, 1_700_000_000_000 + ts_ms, seq, 1))


def delivered(*messages: Sequence[bytes] | Message, counts: Sequence[int] = ()) -> list[Delivery]:
    """Return deliveries of these messages or documents; `counts`: how often each was delivered before."""
    return [
        Delivery(message if isinstance(message, Message) else Message.of(message), tag, count)
        for tag, (message, count) in enumerate(zip(messages, counts or [0] * len(messages), strict=True), 1)
    ]


def settled(deliveries: Sequence[Delivery], outcomes: Sequence[Outcome] | None = None) -> Batch:
    """Return a batch whose documents have these outcomes, in the order of arrival; all stored by default."""
    batch = Batch(deliveries)
    places = range(len(batch.documents))
    batch.set_outcomes(places, [STORED] * len(places) if outcomes is None else list(outcomes))
    return batch


def newest_of(ts_ms: int, found: bytes) -> dict[bytes, tuple[int, bytes]]:
    return {series_bytes(found): (1_700_000_000_000 + ts_ms, found)}


# The newest


@pytest.mark.parametrize("times", list(permutations((1, 2, 3))))
@pytest.mark.parametrize("apart", [False, True], ids=["one message", "a message each"])
def test_the_newest_is_the_newest_by_its_time_whatever_the_order_of_arrival(
    times: tuple[int, ...], apart: bool
) -> None:
    sent = [one for ts_ms in times for one in (document("a", ts_ms), document("b", 10 - ts_ms))]
    batch = settled(delivered(*([one] for one in sent)) if apart else delivered(sent))
    assert batch.newest() == newest_of(3, document("a", 3)) | newest_of(9, document("b", 9))


@pytest.mark.parametrize("seqs", list(permutations((1, 2, 3))))
@pytest.mark.parametrize("apart", [False, True], ids=["one message", "a message each"])
def test_of_documents_of_the_same_time_the_newest_is_the_one_that_came_last(seqs: tuple[int, ...], apart: bool) -> None:
    sent = [document("a", 4), *(document("a", 5, seq) for seq in seqs), document("a", 3)]
    batch = settled(delivered(*([one] for one in sent)) if apart else delivered(sent))
    assert batch.newest() == newest_of(5, document("a", 5, seqs[-1]))


def test_of_the_same_time_the_last_that_was_stored_is_the_newest_when_a_later_one_was_not() -> None:
    sent = [document("a", 5, seq) for seq in (2, 3, 1)]
    assert settled(delivered(sent), [STORED, STORED, DUPLICATE]).newest() == newest_of(5, sent[1])


@pytest.mark.parametrize("rotation", range(6))
def test_only_what_was_stored_counts_in_a_series_of_which_all_sorts_became(rotation: int) -> None:
    # What was not stored is newer than what was.
    became = [(3, STORED), (9, DUPLICATE), (8, DEAD), (7, ERASED), (6, RETRY), (2, STORED)]
    became = became[rotation:] + became[:rotation]
    batch = settled(delivered([document("a", ts_ms) for ts_ms, _ in became]), [outcome for _, outcome in became])
    assert batch.newest() == newest_of(3, document("a", 3))


@pytest.mark.parametrize("outcomes", [*([one] for one in NOT_STORED), NOT_STORED])
def test_a_series_of_which_nothing_was_stored_has_no_newest(outcomes: list[Outcome]) -> None:
    rest = [document("b", 9 - ts_ms) for ts_ms in range(len(outcomes))]
    batch = settled(delivered([document("a", 1)], rest), [STORED, *outcomes])
    assert batch.newest() == newest_of(1, document("a", 1))


def test_times_belong_to_their_documents_also_behind_a_message_without_any() -> None:
    batch = settled(delivered([document("a", 1)], TORN, [document("a", 3), document("a", 2)]))
    assert batch.newest() == newest_of(3, document("a", 3))


# Settling


@pytest.mark.parametrize("outcomes", [[STORED, STORED], [STORED, DUPLICATE], [DEAD, STORED], [DUPLICATE, DUPLICATE]])
def test_settling_fewer_places_than_there_are_documents_notes_only_those(outcomes: list[Outcome]) -> None:
    batch = Batch(delivered([document("a", 1), document("b", 2)], [document("a", 3), document("b", 4)]))
    batch.set_outcomes([2, 1], outcomes)
    assert batch.outcomes == [RETRY, outcomes[1], outcomes[0], RETRY]


def test_settling_the_rest_leaves_alone_what_was_settled_before() -> None:
    batch = Batch(delivered([document("a", 1), document("b", 2), document("a", 3)]))
    batch.set_outcomes([1], [DUPLICATE])
    batch.set_outcomes([0, 2], [STORED, STORED])
    assert batch.outcomes == [STORED, DUPLICATE, STORED]


def test_settling_all_as_stored_notes_all_whatever_the_order_of_the_places() -> None:
    first, second = [document("b", 1), document("a", 2)], [document("b", 3)]
    batch = Batch(delivered(first, second))
    batch.set_outcomes([1, 0, 2], [STORED] * 3)
    assert batch.outcomes == [STORED] * 3
    assert not batch.pending()
    found = [(batched.delivery.tag, documents, outcomes) for batched, documents, outcomes in batch.results()]
    assert found == [(1, first, [STORED] * 2), (2, second, [STORED])]


def test_settling_all_when_not_all_was_stored_notes_each_at_its_place() -> None:
    batch = Batch(delivered([document("b", 1), document("a", 2), document("b", 3)]))
    batch.set_outcomes([1, 0, 2], [STORED, DUPLICATE, ERASED])
    assert batch.outcomes == [DUPLICATE, STORED, ERASED]


# Waiting


def pending_by_series(batch: Batch) -> list[list[int]]:
    """Return the pending indexes, series by series. The order of the series is not specified."""
    runs = groupby(batch.pending(), key=lambda place: series_bytes(batch.documents[place]))
    return sorted(list(places) for _, places in runs)


# The times of a series are not in the order of arrival.
MIXED = [
    [document("b", 9), document("a", 8), document("b", 7)],
    [document("c", 6)],
    [document("a", 5), document("b", 4), document("a", 3)],
]


def test_what_waits_has_each_series_together_and_in_the_order_of_arrival() -> None:
    batch = Batch(delivered(*MIXED))
    assert pending_by_series(batch) == [[0, 2, 5], [1, 4, 6], [3]]


@pytest.mark.parametrize("outcome", [STORED, DUPLICATE, DEAD, ERASED])
def test_what_has_an_outcome_waits_no_more_and_the_rest_stays_in_order(outcome: Outcome) -> None:
    batch = Batch(delivered(*MIXED))
    batch.set_outcomes([2, 3, 1], [outcome] * 3)
    assert pending_by_series(batch) == [[0, 5], [4, 6]]


def test_what_is_marked_dead_is_pending_no_more() -> None:
    batch = Batch(delivered(*MIXED))
    batch.mark_dead(5, "refused", "too odd")
    assert pending_by_series(batch) == [[0, 2], [1, 4, 6], [3]]


def test_of_what_was_delivered_before_all_waits_again_that_has_no_outcome() -> None:
    batch = Batch(delivered(*MIXED, TORN, [document("d", 1)], counts=[1, 0, 2, 1, 0]))
    assert batch.pending_redelivered() == [0, 1, 2, 4, 5, 6]
    batch.set_outcomes([0, 4, 6], [STORED, DUPLICATE, ERASED])
    batch.mark_dead(1, "refused", "too odd")
    assert batch.pending_redelivered() == [2, 5]


def test_nothing_waits_again_of_what_came_for_the_first_time() -> None:
    batch = Batch(delivered(*MIXED))
    assert batch.pending_redelivered() == []
    assert len(batch.pending()) == 7


# Dead documents


def unstorable_of(deliveries: Sequence[BatchedDelivery]) -> list[list[tuple[bytes, str]]]:
    return [[(dead.body, dead.reason) for dead in one.unstorable] for one in deliveries]


@pytest.mark.parametrize(
    ("without", "count", "reason"), [(TORN, 0, "undecodable"), (TORN, MAX_DELIVERIES, "too_often")]
)
@pytest.mark.parametrize("number", [1, 2])
def test_a_dead_document_is_noted_with_its_message_also_beside_messages_without_documents(
    without: Message, count: int, reason: str, number: int
) -> None:
    one, two, three, four = (document("a", ts_ms) for ts_ms in range(4))
    messages: list[list[bytes] | Message] = []
    counts: list[int] = []
    for documents in ([one, two], [three, four]):
        messages += [without] * number + [documents]
        counts += [count] * number + [0]
    # One is at the end, too.
    batch = Batch(delivered(*messages, without, counts=[*counts, count]))
    dead = [[(without.body, reason)]] * number
    assert unstorable_of(batch.deliveries) == [*dead, [], *dead, [], dead[0]]
    for place in (2, 1, 0, 3):  # at the beginning and at the end of a message
        batch.mark_dead(place, "refused", "too odd")
    ours = [[(body, "refused") for body in bodies] for bodies in ([two, one], [three, four])]
    assert unstorable_of(batch.deliveries) == [*dead, ours[0], *dead, ours[1], dead[0]]
    assert batch.outcomes == [DEAD] * 4


def test_marking_one_document_dead_leaves_its_neighbours_and_keeps_reason_and_error() -> None:
    batch = settled(delivered([document("a", 1), document("a", 2), document("a", 3)]))
    batch.mark_dead(1, "refused", "too odd")
    assert batch.outcomes == [STORED, DEAD, STORED]
    assert batch.deliveries[0].unstorable == [Unstorable(document("a", 2), "refused", "too odd")]
