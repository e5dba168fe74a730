"""Documents of one series, random ones and handmade ones, and a plain model of what is asked of them."""

from collections.abc import Iterable
from typing import Any

import bson
from bson import Decimal128, Int64
from bson.datetime_ms import DatetimeMS
from hypothesis import strategies as st

from readings.document import AS_MILLISECONDS, decode_document, encode_document, position_of, series_bytes
from readings.keys import Position, reading_key
from readings.place import Place
from readings.reading import Reading
from storage.codec.columns import Columns, concatenate
from storage.codec.from_documents import columns_of

OWNER, DEVICE, SENSOR_TYPE = "0198c0de-0000-7000-8000-000000000001", "press-1", "temperature"
START_MS = 1_767_225_600_000
SERIES = series_bytes(encode_document(OWNER, DEVICE, Reading(SENSOR_TYPE, 1, START_MS, 0, START_MS)))

usual_floats = st.integers(-3000, 3000).map(lambda hundredths: hundredths / 100)
floats = st.one_of(usual_floats, usual_floats, st.floats(), st.sampled_from([-0.0, 0.0, 5e-324, 1.7e308]))
integers = st.one_of(
    st.integers(-5, 5),
    st.integers(-5, 5).map(Int64),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**31, 2**31 - 1, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63)]),
)
texts = st.one_of(st.sampled_from(["on", "off", "", "öffnet"]), st.text("aé\0", max_size=5))
whole = st.one_of(
    st.none(), st.just(Decimal128("1.50")), st.lists(st.integers(0, 3), max_size=2), st.binary(max_size=3)
)
values = st.one_of(floats, integers, st.booleans(), texts, whole)
# A series mostly has values of one type.
value_columns = st.one_of(
    *(st.lists(each, min_size=1, max_size=60) for each in (values, floats, integers, st.booleans(), texts)),
    st.lists(st.one_of(usual_floats, st.integers(-9, 9)), min_size=1, max_size=60),
    st.tuples(values, st.integers(1, 60)).map(lambda pair: [pair[0]] * pair[1]),
)
degrees = st.floats(-90, 90)
places: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"lat": degrees, "lon": degrees}, optional={"alt": floats}
)
attributes: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "unit": st.sampled_from(["°C", "V"]),
            "location": st.one_of(st.sampled_from(["hall 1", "hall 2"]), places, st.just({"lat": 1, "lon": 2.0})),
            "tags": st.dictionaries(st.sampled_from("abc"), texts, max_size=2),
            "quality": st.sampled_from(["good", "bad"]),
            "later": st.one_of(st.integers(0, 2**40), texts),
        },
    ),
    st.fixed_dictionaries({"quality": st.just("good"), "unit": st.just("V"), "location": places}),
)


@st.composite
def documents(draw: st.DrawFn) -> list[bytes]:
    """Documents of one series in no order, with repeats: times jump, attributes change, values are of any type."""
    column = draw(value_columns)
    step = draw(st.sampled_from([0, 1, 1000, 300_000]))
    jumps = draw(st.lists(st.integers(-4_000_000, 4_000_000), max_size=3))
    own = draw(st.lists(attributes, min_size=1, max_size=4))
    change = draw(st.sampled_from([1, 3, 20]))
    many_seq, late = draw(st.booleans()), draw(st.sampled_from([0, 5, 7200_000]))
    ts, made = START_MS, []
    for number, value in enumerate(column):
        ts += step + (jumps[number % len(jumps)] if jumps and number % 11 == 10 else 0)
        seq = 2**52 + number * 7919 if many_seq else number if step == 0 else 0
        received = ts + late + number % 7
        made.append(document(value, ts, seq, received, **own[number // change % len(own)]))
    return made


def document(value: Any, ts_ms: int, seq: int = 0, received_ms: int | None = None, **fields: Any) -> bytes:
    """Return a document of the series with any value and attributes."""
    key = reading_key(OWNER, DEVICE, SENSOR_TYPE, ts_ms, seq)
    received = DatetimeMS(ts_ms + 5 if received_ms is None else received_ms)
    return bson.encode({"_id": key, "value": value, "receivedAt": received, **fields})


def moving(count: int) -> list[bytes]:
    """Return documents as the gateway writes them, each with a location of its own."""
    return [
        encode_document(
            OWNER,
            DEVICE,
            Reading(
                SENSOR_TYPE, 20.5, START_MS + n * 1000, 0, START_MS + n * 1000 + 4, Place(50 + n / 7, -0.0), unit="V"
            ),
        )
        for n in range(count)
    ]


def positions(documents: Iterable[bytes]) -> list[Position]:
    """Return (ts, seq) of each."""
    return [position_of(bson.decode(each, AS_MILLISECONDS)) for each in documents]


def in_order(documents: Iterable[bytes]) -> list[bytes]:
    """Return documents in order, of each identity the first."""
    first: dict[Position, bytes] = {}
    for each in documents:
        first.setdefault(positions([each])[0], each)
    return [first[position] for position in sorted(first)]


def columns(documents: list[bytes], seal: int = 1) -> Columns:
    """Return documents in their order as columns."""
    return columns_of(b"".join(documents), seal)


def columns_by_seal(parts: list[tuple[int, list[bytes]]]) -> Columns:
    """Return the documents of several seal numbers as columns, one part after the other."""
    return concatenate([columns(documents, seal) for seal, documents in parts])


def value_of(raw: bytes) -> Any:
    """Return the value of a document."""
    return decode_document(raw)["value"]
