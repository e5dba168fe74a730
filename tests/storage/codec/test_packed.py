"""Numbers in base 128 are read back, and bytes that end early or say too much are no block."""

import random

import pytest

from storage.codec.packed import BlockError, Input, uint


def test_numbers_of_any_length_are_read_back(rng: random.Random) -> None:
    numbers = [rng.getrandbits(rng.randrange(65)) for _ in range(1000)] + [0, 127, 128, 2**64 - 1]
    data = Input(b"".join(map(uint, numbers)))
    assert [data.uint(2**64 - 1) for _ in numbers] == numbers
    data.end()


@pytest.mark.parametrize(
    ("data", "limit", "why"),
    [
        (b"", 9, "1 byte is needed and 0 are left"),
        (b"\x80\xff", 2**64 - 1, "1 byte is needed and 0 are left"),
        (b"\xff" * 11, 2**64 - 1, "more than 64 bits"),
        (uint(2**64), 2**64 - 1, "is above its bound"),
        (b"\x0a", 9, "10 is above its bound, 9"),
        (b"\x80\x01", 127, "128 is above its bound, 127"),
    ],
)
def test_a_number_that_ends_early_or_is_too_large_is_refused(data: bytes, limit: int, why: str) -> None:
    with pytest.raises(BlockError, match=why):
        Input(data).uint(limit)


@pytest.mark.parametrize("size", [-1, 4])
def test_bytes_that_are_not_there_are_not_taken(size: int) -> None:
    data = Input(b"abc")
    with pytest.raises(BlockError, match="3 are left"):
        data.take(size)
    assert (data.take(2), data.left) == (b"ab", 1)
    with pytest.raises(BlockError, match="1 bytes are left over"):
        data.end()
