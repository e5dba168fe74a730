"""The load generator's frames, readings and percentiles."""

import pytest
from msgspec import Raw
from msgspec.json import decode

from bench.frames import TEXT, server_frames, text_frame
from bench.load import histogram, percentile
from bench.readings import event
from readings.encoder import ReadingEncoder
from readings.reading import Defaults, check_one


def frame(payload: bytes) -> bytes:
    """Return a server's frame: a client's without the mask."""
    masked = text_frame(payload)
    head = len(masked) - len(payload) - 4
    return bytes((masked[0], masked[1] & 0x7F)) + masked[2:head] + payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_frame_is_read_back_whatever_its_length(size: int) -> None:
    payload = b"x" * size
    raw = frame(payload)
    assert list(server_frames(raw)) == [(TEXT, payload, len(raw))]


@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_a_torn_frame_waits_for_its_rest_and_those_before_it_are_read(size: int) -> None:
    complete, torn = frame(b"first"), frame(b"x" * size)
    for cut in (1, len(torn) // 2, len(torn) - 1):
        assert [(payload, end) for _, payload, end in server_frames(complete + torn[:cut])] == [
            (b"first", len(complete))
        ]


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([], 0.99) == 0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(number) for number in range(1000)], 0.99) == 989


def test_a_histogram_counts_each_value_once_at_its_bound() -> None:
    found = histogram([0.0005, 0.001, 0.0011, 0.002, 9.0])
    assert found == {"<= 1 ms": 2, "<= 2 ms": 2, "more": 1}


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("size", [1, 100])
def test_the_readings_of_the_load_are_taken(size: int, placed: bool) -> None:
    name, payload = decode(event(size, 7, placed=placed), type=tuple[str, Raw])
    now_ms = 4_000_000_000_000
    if size == 1:
        assert name == "reading"
        check_one(bytes(payload), Defaults(), now_ms)
    else:
        encoded = ReadingEncoder("owner", "device", Defaults()).encode_many(bytes(payload), now_ms)
        assert (name, len(encoded.documents), encoded.rejected) == ("readings", size, [])
