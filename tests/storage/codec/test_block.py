"""Blocks: every document comes back byte for byte, and damaged bytes are refused."""

import math
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readings.document import id_bytes, split_documents
from storage.codec.block import Block, decode_block, encode_block
from storage.codec.columns import Columns, Kind
from storage.codec.decode import decode, decode_values
from storage.codec.encode import encode
from storage.codec.packed import MAX_READINGS, BlockError, BlockTooLarge
from storage.codec.sections import START, VERSION, Section
from storage.codec.to_documents import documents_of
from tests.storage.codec.cases import (
    SERIES,
    START_MS,
    columns,
    columns_by_seal,
    document,
    documents,
    in_order,
    moving,
    value_of,
)

# The offset of the value's type: behind the length of the document, the name and length of `_id`, and `_id`.
ID_END = 9 + len(id_bytes(document(1, START_MS)))
GOLDEN = Path(__file__).parent / "golden"
EVER = (-(2**63), 0), (2**63 - 1, 0)


def sections_of(block: bytes) -> dict[int, bytes]:
    """Read a block's sections by the description of the format; all lengths here are below 2**14."""
    found, at = {}, START.size + 1 + (block[START.size] > 0x7F)
    while at < len(block):
        id_, size, at = block[at], block[at + 1], at + 2
        if size > 0x7F:
            size, at = (size & 0x7F) | block[at] << 7, at + 1
        found[id_] = block[at : at + size]
        at += size
    return found


def with_crc(body: bytes, version: int = VERSION) -> bytes:
    return START.pack(version, zlib.crc32(body)) + body


@given(documents())
@settings(deadline=None)
def test_every_document_comes_back_byte_for_byte(made: list[bytes]) -> None:
    made = in_order(made)
    assert documents_of(columns(made)) == made
    block = encode_block(columns(made), *EVER)
    assert documents_of(decode_block(block)) == made


@given(documents())
@settings(deadline=None)
def test_times_and_numbers_come_back_without_the_rest(made: list[bytes]) -> None:
    made = in_order(made)
    block = encode(columns(made))
    whole, values = decode(block, SERIES), decode_values(block)
    assert values.ts.tolist() == whole.ts.tolist()
    assert values.kinds.tolist() == whole.kinds.tolist()
    for raw, number in zip(made, values.numbers.tolist(), strict=True):
        value = value_of(raw)
        if isinstance(value, int | float) and not math.isnan(value):
            assert number == float(value)
            assert math.copysign(1, number) == math.copysign(1, value)
        else:
            assert math.isnan(number)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=50))
@settings(deadline=None)
def test_seal_numbers_come_back(seals: list[int]) -> None:
    made = columns_by_seal([(seal, [document(1.5, START_MS + n)]) for n, seal in enumerate(seals)])
    assert decode(encode(made), SERIES).seals.tolist() == seals


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("one", [document(21.5, START_MS)]),
        ("constant", [document(21.5, START_MS + n * 1000) for n in range(500)]),
        ("minus zero", [document(-0.0 if n % 3 else 0, START_MS + n) for n in range(90)]),
        ("as JavaScript writes", [document(n / 4 if n % 4 else n // 4, START_MS + n) for n in range(500)]),
        ("both types of whole numbers", [document(n if n % 5 else float(n), START_MS + n) for n in range(500)]),
        ("extremes", [document((2**63 - 1, -(2**63), 0)[n % 3], START_MS + n) for n in range(60)]),
        ("times far apart", [document(1, ts) for ts in (-(2**62), -1, 0, 2**62)]),
        ("moving", moving(300)),
        ("texts of every length", [document("x" * n, START_MS + n) for n in range(200)]),
        ("tags that never repeat", [document(1.5, START_MS + n, tags={"n": str(n + 1000)}) for n in range(200)]),
    ],
)
def test_series_of_every_sort_come_back(name: str, made: list[bytes]) -> None:
    del name
    assert documents_of(decode(encode(columns(made)), SERIES)) == made


def test_a_moving_device_takes_columns_for_its_location() -> None:
    found = columns(moving(300))
    assert len(found.tail_list) == 1
    assert found.places is not None
    assert found.places[7].tolist() == [50 + 7 / 7, -0.0, 0]


def test_a_kept_location_is_no_column() -> None:
    made = [document(1.5, START_MS + n, location={"lat": 1.5, "lon": 2.5}) for n in range(20)]
    assert columns(made).places is None


def test_integers_between_floats_cost_no_types() -> None:
    made = [document(n / 4 if n % 4 else n // 4, START_MS + n * 1000) for n in range(4000)]
    sections = sections_of(encode(columns(made)))
    assert len(sections[Section.KINDS]) <= 3
    assert Section.INTEGERS not in sections


def test_a_second_of_two_decimals_takes_less_than_four_bytes(rng_of_block: np.random.Generator) -> None:
    jitter = rng_of_block.integers(-20, 21, 1000)
    level = np.round(21 + np.cumsum(rng_of_block.normal(0, 0.05, 1000)), 2)
    made = [
        document(value, START_MS + n * 1000 + at, 0, START_MS + n * 1000 + at + 3 + at % 7)
        for n, (value, at) in enumerate(zip(level.tolist(), jitter.tolist(), strict=True))
    ]
    assert len(encode(columns(made))) < 3 * len(made)


@pytest.fixture
def rng_of_block(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("made", [[], [document(1, 2), document(1, 1)], [document(1, 1), document(2, 1)]])
def test_readings_out_of_order_or_repeated_are_refused(made: list[bytes]) -> None:
    found = columns(made or [document(1, 1)])
    with pytest.raises(ValueError, match=r"in order, each once|at least one"):
        encode(found if made else found.take(slice(0, 0)))


def test_too_many_readings_are_refused() -> None:
    one = columns([document(1.5, START_MS)])
    many = one.take(np.zeros(MAX_READINGS + 1, np.int64))
    many.ts[:] = np.arange(len(many))
    with pytest.raises(BlockTooLarge):
        encode(many)
    assert len(decode(encode(many.take(slice(0, MAX_READINGS))), SERIES)) == MAX_READINGS


def test_readings_that_take_too_many_bytes_are_refused_and_half_of_them_fit() -> None:
    made = columns([document(f"{n:06}" + "x" * 4000, START_MS + n) for n in range(2500)])
    with pytest.raises(BlockTooLarge):
        encode(made)
    assert len(decode(encode(made.take(slice(0, 1250))), SERIES)) == 1250


def test_a_block_with_another_count_than_its_head_is_refused() -> None:
    one, two = (encode_block(columns([document(1, START_MS + at) for at in range(n)]), *EVER) for n in (1, 2))
    with pytest.raises(BlockError, match="2 readings, and the head counts 1"):
        decode_block(Block(one.head, two.columns))


def test_a_later_version_is_named() -> None:
    block = encode(columns([document(1, START_MS)]))
    with pytest.raises(BlockError, match="version 2, and 1 is the highest"):
        decode(with_crc(block[START.size :], VERSION + 1), SERIES)


@given(documents(), st.data())
@settings(deadline=None)
def test_a_damaged_block_is_refused(made: list[bytes], data: st.DataObject) -> None:
    block = encode(columns(in_order(made)))
    at, bits = data.draw(st.integers(0, len(block) - 1)), data.draw(st.integers(1, 255))
    for damaged in (block[:at], block[:at] + bytes((block[at] ^ bits,)) + block[at + 1 :], block + b"\0"):
        for read in (lambda found: decode(found, SERIES), decode_values):
            with pytest.raises(BlockError):
                read(damaged)


def read_within_bounds(block: bytes) -> Columns | None:
    """Decode what may be anything, with little memory and no error but BlockError."""
    tracemalloc.start()
    try:
        decode_values(block)
        found = decode(block, SERIES)
        documents_of(found)
    except BlockError:
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000_000
    return found


@given(documents(), st.data())
@settings(deadline=None)
def test_a_forged_block_is_refused_or_decodes_within_bounds(made: list[bytes], data: st.DataObject) -> None:
    body = bytearray(encode(columns(in_order(made)))[START.size :])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read_within_bounds(with_crc(bytes(body)))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_random_bytes_are_refused_or_decode_within_bounds(body: bytes) -> None:
    read_within_bounds(with_crc(body))


MANY = b"\xff\xff\xff\xff\x0f"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (MANY, "above its bound, 65536"),
        (b"\x00", "no readings"),
        (b"\x01", "section 5 is missing"),
        (b"\x01\x02\x01\x00\x01\x01\x00", "section 1 follows section 2"),
        (b"\x01\x11\x00", "17 is above its bound, 16"),
        (b"\x01\x05" + MANY, "above its bound"),
        (b"\x01\x05\x02\x01\x06", "unknown kind"),
        (b"\x01\x05\x01\x09", "unknown way"),
        (b"\x01" + b"\xff" * 11, "more than 64 bits"),
        (b"\x20\x05\x0a\x02\x01\x02\x01\x40\x02\x01\x02\x01\x40", "runs of runs"),
        (b"\x20\x05\x07\x02\x01\x02\x01\x3e\x01\x02", "do not add up to 32"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_allocated(body: bytes, error: str) -> None:
    with pytest.raises(BlockError, match=error):
        decode(with_crc(body), SERIES)
    assert read_within_bounds(with_crc(body)) is None


@pytest.mark.parametrize("name", sorted(file.stem for file in GOLDEN.glob("*.block")))
def test_blocks_of_every_version_are_readable_for_good(name: str) -> None:
    made = split_documents(zlib.decompress((GOLDEN / f"{name}.bson.zz").read_bytes()))
    block = (GOLDEN / f"{name}.block").read_bytes()
    found = decode(block, SERIES)
    assert documents_of(found) == made
    assert found.seals.tolist() == [7 + (at >= len(made) // 2) for at in range(len(made))]
    assert decode_values(block).ts.tolist() == found.ts.tolist()


def test_golden_blocks_cover_the_format() -> None:
    blocks = {file.stem: file.read_bytes() for file in GOLDEN.glob("*.block")}
    assert {block[0] for block in blocks.values()} == set(range(1, VERSION + 1))
    current = [block for block in blocks.values() if block[0] == VERSION]
    assert {id_ for block in current for id_ in sections_of(block)} == set(Section)
    codes = {section[0] for block in current for id_, section in sections_of(block).items() if id_ in range(1, 9)}
    assert codes == {0, 1, 2, 3}


def test_a_forged_integer_is_refused() -> None:
    made = encode(columns([document(n * 1000 + 7, START_MS + n) for n in range(2)]))
    sections = sections_of(made) | {Section.INTEGERS: b"\x00" + struct.pack("<2q", 1, 2**31)}
    body = b"\x02" + b"".join(bytes((id_, len(data))) + data for id_, data in sorted(sections.items()))
    with pytest.raises(BlockError, match="outside of 32 bits"):
        decode(with_crc(body), SERIES)


def test_kinds_have_the_codes_of_bson() -> None:
    values = {"FLOAT": 1.5, "TEXT": "a", "BOOLEAN": True, "INT32": 1, "INT64": 2**40}
    codes = {name: document(value, START_MS)[ID_END] for name, value in values.items()}
    assert {kind.name: int(kind) for kind in Kind} == codes | {"OTHER": 0}
