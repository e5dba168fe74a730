"""The evaluation of the drain bench."""

import pytest

from bench.drain import Drained, large_documents
from bench.processes import BenchError
from broker.message import MAX_BYTES, Message


def test_what_the_first_look_found_is_in_no_figure() -> None:
    # 400 were there before the first look; 600 came in 6 s, evenly.
    samples = [(0.0, 0), (10.0, 400), *((10.0 + seconds / 10, 400 + 10 * seconds) for seconds in range(1, 61))]
    drained = Drained.from_samples(samples, 1000)
    assert drained.per_second == pytest.approx(100)
    assert drained.tenths_s == pytest.approx([0.6 * tenth for tenth in range(1, 11)])
    assert drained.last_to_first == pytest.approx(1)


def test_where_the_first_look_found_too_much_nothing_is_said() -> None:
    with pytest.raises(BenchError, match="use more"):
        Drained.from_samples([(1.0, 600), (2.0, 1000)], 1000)


def test_large_messages_are_as_large_as_they_may_be() -> None:
    size = len(Message.of(list(large_documents(1000))).body)
    assert 0.9 * MAX_BYTES < size <= MAX_BYTES
