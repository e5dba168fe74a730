"""The header that marks documents, and the payloads of receipts."""

import random

import msgspec
import pytest

from broker.message import Message
from broker.receipts import (
    MAX_IDENTITIES,
    StoredSeries,
    decode_stored,
    header_of,
    ranges_of,
    stored_payloads,
)


def test_ranges_survive_the_header_and_neighbours_are_joined(rng: random.Random) -> None:
    bounds = sorted(rng.sample(range(1000), 100))
    ranges = list(zip(bounds[::2], bounds[1::2], strict=True))
    assert ranges_of(header_of(ranges), 1000) == ranges
    assert header_of([(0, 2), (2, 5), (7, 8)]) == "0-5 7-8"


@pytest.mark.parametrize("header", ["", "x", "1", "3-2", "0-6", "-1-2", "0-1-2", "1.5-2", 7, True])
def test_any_other_header_marks_nothing(header: object) -> None:
    assert ranges_of(header, 5) == []


def test_a_message_without_receipts_has_no_header_for_them() -> None:
    assert set(Message.of([b""]).headers) == {"x-schema"}
    assert Message.of([b""], "0-1").headers == {"x-schema": 1, "x-receipts": "0-1"}


def test_payloads_are_bounded_and_together_have_everything() -> None:
    series = {("o", "d", f"t{number}"): [(at, number) for at in range(number * 700)] for number in range(1, 12)}
    payloads = list(stored_payloads(series.items()))
    found: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for payload in payloads:
        part = decode_stored(payload)
        assert sum(len(one.readings) for one in part) <= MAX_IDENTITIES
        for one in part:
            found.setdefault((one.owner, one.device, one.sensor_type), []).extend(one.readings)
    assert found == series
    assert len(payloads) == -(-sum(map(len, series.values())) // MAX_IDENTITIES)


def test_a_payload_of_another_form_is_refused() -> None:
    assert decode_stored(b'[["o","d","t",[[1,2]]]]') == [StoredSeries("o", "d", "t", [(1, 2)])]
    with pytest.raises(msgspec.DecodeError):
        decode_stored(b'{"o":1}')
