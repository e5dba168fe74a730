"""Columns as lines of CSV and NDJSON: the same bytes as each document alone becomes, whatever is in it."""

import json
import math
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from reader.history import lines
from reader.history.csv_lines import csv_form
from reader.history.lines import LineForm
from reader.history.ndjson_lines import ndjson_form
from reader.responses import AS_STORED
from readings.keys import reading_key, series_key
from storage.codec.columns import Columns, concatenate
from storage.places.names import UNSEALED
from storage.places.raw import Raw
from storage.places.window import Window
from tests.storage.codec.cases import DEVICE, OWNER, SENSOR_TYPE, START_MS, columns, document, documents, moving

FORMS = {
    "csv": csv_form(DEVICE, SENSOR_TYPE),
    "spreadsheet": csv_form(DEVICE, SENSOR_TYPE, for_spreadsheet=True),
    "ndjson": ndjson_form(DEVICE, SENSOR_TYPE),
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
LAST = 2**63 - 1


def encoded(form: LineForm, columns: Columns) -> bytes:
    return b"".join(form.lines(columns))


def one_by_one(form: LineForm, made: list[bytes]) -> bytes:
    return b"".join(form.document(bson.decode(each, AS_STORED)) for each in made)


@each_form
@given(made=documents(), size=st.sampled_from([1, 3, 4096]))
def test_columns_are_the_lines_of_their_documents(form: LineForm, made: list[bytes], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "SLICE", size)
        patch.setattr(lines, "SMALL_SLICE", size)
        assert encoded(form, columns(made)) == one_by_one(form, made)
        assert encoded(form, columns(made).take(slice(None, None, -1))) == one_by_one(form, made[::-1])


@each_form
@given(parts=st.lists(documents(), min_size=1, max_size=3))
def test_columns_put_together_are_the_lines_of_their_documents(form: LineForm, parts: list[list[bytes]]) -> None:
    together = concatenate([columns(part) for part in parts])
    assert encoded(form, together) == b"".join(one_by_one(form, part) for part in parts)


TEXTS = [
    *("", "on", "1", "true", 'he said "no"', "a,b;c", "line\nline", "cr\r\n", "tab\tnul\x00end", "\u2028"),
    *("\u00e4\U0001f321", "=1+1", "-1", " @a", "a;=1", "\uff1d1", "\t=1", "x" * 256),
]
FLOATS = [
    *(1.5, 0.0, -0.0, 0.1 + 0.2, 21.0, -5.25, 1e300, 5e-324, 1e-4, 9.999e-5, -1e-5, 1e15, 1e16, -1e16, 1.5e16),
    *(1e21, 1e22, 9999999999999998.0, 123456789012345680.0, math.nan, math.inf, -math.inf),
]
INTEGERS = [0, 1, -1, 2**31, -(2**31) - 1, 2**53 + 1, Int64(7), LAST, -(2**63)]
VALUES: list[Any] = [*TEXTS, *FLOATS, *INTEGERS, True, False]
# With the ends of Python's calendar, the years 1 and 9999, and the millisecond beyond each.
TIMES = [
    *(0, -1, 999, 60_000, 951_782_400_000),
    *(253_402_300_799_999, 253_402_300_800_000, -62_135_596_800_000, -62_135_596_800_001),
]


@each_form
@pytest.mark.parametrize("values", [TEXTS, FLOATS, INTEGERS, [True, False], VALUES])
def test_every_value_alone_and_among_others(form: LineForm, values: list[Any]) -> None:
    made = [document(value, START_MS + number, number % 3) for number, value in enumerate(values)]
    assert encoded(form, columns(made)) == one_by_one(form, made)
    for each in made:
        assert encoded(form, columns([each])) == one_by_one(form, [each])


@each_form
def test_times_to_the_ends_of_the_calendar_and_beyond(form: LineForm) -> None:
    times = [*TIMES, LAST, -(2**63), *(START_MS + 86_399_999 * number for number in range(500))]
    made = [document(1.5, ts, 0, received) for ts, received in zip(times, reversed(times), strict=True)]
    assert encoded(form, columns(made)) == one_by_one(form, made)


@each_form
def test_locations_that_move(form: LineForm) -> None:
    made = moving(100)
    places: list[dict[str, float]] = [{"lat": n / 3, "lon": -n * 1e-7} for n in range(50)]
    places += [
        {"lat": -0.0, "lon": 1e-5, "alt": alt} for alt in (math.nan, math.inf, 1e17, *(n / 7 for n in range(40)))
    ]
    made += [
        document(1, START_MS + n, unit=("V", "0.0")[n % 2], location=place | {}, tags={"0.0": "0.0"}, quality="bad")
        for n, place in enumerate(places)
    ]
    found = columns(made)
    assert found.places is not None
    assert encoded(form, found) == one_by_one(form, made)


@each_form
def test_documents_that_only_a_manual_write_stores_hide_no_neighbour(form: LineForm) -> None:
    key = reading_key(OWNER, DEVICE, SENSOR_TYPE, START_MS, 0)
    odd: list[dict[str, Any]] = [
        {"_id": key, "value": None},
        {"_id": key, "value": 1.5, "receivedAt": "today"},
        {"_id": key | {"seq": 2.0}, "value": Decimal128("1.50"), "receivedAt": DatetimeMS(2**62), "unit": 7},
        {"_id": key | {"more": 1}, "value": {"a": 1}, "location": [1, None], "tags": "text", "quality": {"a": 1}},
    ]
    made = [document(1.5, START_MS)]
    for each in odd:
        made += [bson.encode(each), document("x", START_MS), document(2, START_MS, unit="V")]
    nameless = bson.encode({"_id": key | {"ts": "text"}, "value": 1})
    body = b"".join([*made[:2], nameless, *made[2:]])
    found = Raw(body).columns(UNSEALED, Window(series_key(OWNER, DEVICE, SENSOR_TYPE)))
    assert found is not None
    assert encoded(form, found) == one_by_one(form, made)
    # Also bytes that are not UTF-8, which the driver decodes only as it is told to.
    spoilt = [document("spoilt", START_MS, unit="spoilt").replace(b"spoilt", b"sp\xffilt")]
    assert encoded(form, columns(spoilt)) == one_by_one(form, spoilt)
    assert encoded(form, columns(spoilt)).count("sp\ufffdilt".encode()) == 2


def test_lines_as_they_have_always_been() -> None:
    more: dict[str, Any] = {"unit": "\u00b0C", "location": {"lat": 48.0, "lon": -0.5}, "tags": {"a": '1,"'}}
    values = [1.0, 1e16, -0.0, 5, True, 'a"b', "=1"]
    made = [document(value, START_MS + 1, 7, START_MS + 250, **more) for value in values]
    times = "2026-01-01T00:00:00.001Z", "2026-01-01T00:00:00.250Z"
    shown = ["1.0", "1e+16", "-0.0", "5", "true", '"a""b"', '"=1"']
    rest = ',\u00b0C,"{""lat"":48.0,""lon"":-0.5}","{""a"":""1,\\""""}",\r\n'
    expected = "".join(f"press-1,temperature,{times[0]},7,{value},{times[1]}{rest}" for value in shown)
    assert encoded(FORMS["csv"], columns(made)).decode() == expected
    assert one_by_one(FORMS["csv"], made).decode() == expected
    numbers = ["1.0", "1e16", "-0.0", "5", "true", '"a\\"b"', '"=1"']
    rest = ',"unit":"\u00b0C","location":{"lat":48.0,"lon":-0.5},"tags":{"a":"1,\\""}}\n'
    names = '{"device":"press-1","sensorType":"temperature",'
    assert encoded(FORMS["ndjson"], columns(made)).decode() == "".join(
        f'{names}"ts":"{times[0]}","seq":7,"value":{value},"receivedAt":"{times[1]}"{rest}' for value in numbers
    )
    assert one_by_one(FORMS["ndjson"], made) == encoded(FORMS["ndjson"], columns(made))


def test_names_are_quoted_as_each_format_does() -> None:
    made = [document(1, START_MS)]
    names = 'a,"b"', "=c\n"
    assert encoded(csv_form(*names), columns(made)).startswith(b'"a,""b""","=c\n",2026')
    assert encoded(csv_form(*names, for_spreadsheet=True), columns(made)).startswith(b'"a,""b""","\'=c\n",2026')
    line = json.loads(encoded(ndjson_form(*names), columns(made)))
    assert (line["device"], line["sensorType"]) == names


def test_a_slice_is_never_longer_than_what_is_encoded_at_once() -> None:
    made = [document(1.5, START_MS + number) for number in range(9000)]
    assert [part.count(b"\n") for part in FORMS["csv"].lines(columns(made))] == [4096, 4096, 808]
    own = [document(1.5, START_MS + number, tags={"n": str(number)}) for number in range(3000)]
    assert [part.count(b"\n") for part in FORMS["csv"].lines(columns(own))] == [1024, 1024, 952]
    assert list(FORMS["csv"].lines(columns(own).take(slice(0)))) == []
