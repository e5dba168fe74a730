"""`GET /readings` as CSV and NDJSON: the same readings as in JSON, in the requested format."""

import csv
import io
import json
from typing import Any

import pytest

from readings.csv_row import read_location
from readings.place import Place
from tests.reader.harness import DEVICE, SENSOR, TS, VALUES, ReaderClient, Store, make_reading, series

HEAD = ["device", "sensorType", "ts", "seq", "value", "receivedAt", "unit", "location", "tags", "quality"]
PLACE = Place(48.1, 11.5)
# Each with different fields, so that none can be mistaken for another.
MORE: list[dict[str, Any]] = [
    {},
    {"unit": "\u00b0C", "location": 'hall "3", left', "tags": {"a": "1,2", "b": 'x"y\nz'}},
    {"unit": "m/s, squared"},
    {"location": Place(48.1, 11.5, 520.0)},
    {"tags": {"a": "1"}},
    {"location": PLACE, "tags": {}, "quality": "uncertain"},
    {"quality": "bad"},
]


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


async def filled(reader_client: ReaderClient, store: Store) -> list[dict[str, Any]]:
    readings = [make_reading(value, TS + number, **MORE[number % len(MORE)]) for number, value in enumerate(VALUES)]
    await store.insert(*readings)
    items = (await reader_client.readings(limit=1000)).items
    assert len(items) == len(VALUES)
    return items


async def test_csv_is_what_rfc_4180_reads_back_as_what_was_stored(reader_client: ReaderClient, store: Store) -> None:
    items = await filled(reader_client, store)
    answer = await reader_client.readings(format="csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    head, *rows = list(csv.reader(io.StringIO(answer.body.decode(), newline=""), strict=True))
    assert head == HEAD
    assert len(rows) == len(items)
    for row, item in zip(rows, items, strict=True):
        found = dict(zip(HEAD, row, strict=True))
        assert [found[name] for name in ("device", "sensorType", "ts", "receivedAt")] == [
            *(DEVICE, SENSOR, item["ts"], item["receivedAt"])
        ]
        assert int(found["seq"]) == item["seq"]
        assert found["value"] == as_text(item["value"])
        assert found["unit"] == item.get("unit", "")
        location = item.get("location", "")
        assert (json.loads(found["location"]) if isinstance(location, dict) else found["location"]) == location
        assert (json.loads(found["tags"]) if found["tags"] else None) == item.get("tags")
        assert found["quality"] == item.get("quality", "")


async def test_csv_ends_its_lines_with_crlf_and_quotes_text_values_and_nothing_that_is_none(
    reader_client: ReaderClient, store: Store
) -> None:
    await store.insert(
        *(make_reading(value, TS + n) for n, value in enumerate([1, "1", True, "true", 'a"b', "", "=1+1", 1.0]))
    )
    lines = (await reader_client.readings(format="csv")).body.decode().split("\r\n")
    assert lines[0] == ",".join(HEAD)
    assert lines[-1] == ""
    values = [line.split(",")[4] for line in lines[1:-1]]
    assert values == ["1", '"1"', "true", '"true"', '"a""b"', '""', '"=1+1"', "1.0"]
    assert lines[1] == f"{DEVICE},{SENSOR},2025-06-15T15:06:40.000Z,0,1,2025-06-15T15:06:40.250Z,,,,"


async def test_names_that_csv_would_take_for_its_own_signs_are_quoted(
    reader_client: ReaderClient, store: Store
) -> None:
    device, sensor = 'a,"b"', "line\nline"
    await store.insert(make_reading(1, sensor=sensor), device=device)
    answer = await reader_client.readings(device, sensor, format="csv")
    _, row = list(csv.reader(io.StringIO(answer.body.decode(), newline=""), strict=True))
    assert row[:2] == [device, sensor]


async def test_each_line_of_ndjson_is_the_item_that_json_has(reader_client: ReaderClient, store: Store) -> None:
    items = await filled(reader_client, store)
    answer = await reader_client.readings(format="ndjson")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.body.endswith(b"\n")
    lines = answer.body.split(b"\n")[:-1]
    assert [json.loads(line) for line in lines] == items
    assert [repr(json.loads(line)["value"]) for line in lines] == [repr(value) for value in VALUES]


@pytest.mark.parametrize("format_", ["csv", "ndjson"])
async def test_a_stream_has_everything_in_its_bounds_or_as_much_as_a_limit_says(
    reader_client: ReaderClient, store: Store, format_: str
) -> None:
    await store.insert(*(make_reading(number, TS + number) for number in range(2500)))

    async def found(**query: Any) -> list[int]:
        body = (await reader_client.readings(format=format_, **query)).body.decode().splitlines()
        if format_ == "csv":
            return [int(line.split(",")[4]) for line in body[1:]]
        return [json.loads(line)["value"] for line in body]

    assert await found() == list(range(2500))
    assert await found(order="desc") == list(range(2500))[::-1]
    assert await found(from_=TS + 100, to=TS + 1300) == list(range(100, 1300))
    for limit in (1, 99, 100, 101, 1000):
        assert await found(limit=limit) == list(range(limit))
    assert await found(limit=3, order="desc") == [2499, 2498, 2497]
    after = (await reader_client.readings(limit=700)).json["nextCursor"]
    assert await found(cursor=after) == list(range(700, 2500))
    assert await found(from_=TS + 5000) == []


async def test_nothing_is_a_head_without_lines_and_no_line(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(1, sensor="other"))
    assert (await reader_client.readings(format="csv")).body == ",".join(HEAD).encode() + b"\r\n"
    assert (await reader_client.readings(format="ndjson")).body == b""


ENDS = {"csv": "# end {}\r\n", "ndjson": '{{"end":true,"count":{}}}\n'}


@pytest.mark.parametrize("format_", ["csv", "ndjson"])
async def test_a_last_line_counts_the_readings_where_it_is_requested(
    reader_client: ReaderClient, store: Store, format_: str
) -> None:
    await store.insert(*(make_reading(number, TS + number) for number in range(2500)))
    for query, count in (
        ({}, 2500),
        ({"limit": 7}, 7),
        ({"order": "desc", "limit": 1000}, 1000),
        ({"from_": TS + 5000}, 0),
        ({"from_": TS + 100, "to": TS + 1300}, 1200),
    ):
        plain = (await reader_client.readings(format=format_, **query)).body
        assert (await reader_client.readings(format=format_, end="false", **query)).body == plain
        ended = (await reader_client.readings(format=format_, end="true", **query)).body
        assert ended == plain + ENDS[format_].format(count).encode()
    head = await reader_client.fetch("/readings", series(format=format_, end="true"), method="HEAD")
    assert (head.status, head.body) == (200, b"")


async def test_a_page_of_json_has_no_last_line(reader_client: ReaderClient) -> None:
    assert (await reader_client.readings(end="true")).invalid_fields == ["end"]
    assert (await reader_client.readings(format="json", end="true")).invalid_fields == ["end"]
    assert (await reader_client.readings(format="csv", end="maybe")).invalid_fields == ["end"]


async def test_an_empty_text_is_distinct_from_none_and_a_location_that_reads_as_a_position_from_one(
    reader_client: ReaderClient, store: Store
) -> None:
    texts = ["", '{"lat":48.1,"lon":11.5}', '{"lat":48.1, "lon":11.5}', '"hall"', '"{\\"lat\\":48.1,\\"lon\\":11.5}"']
    more: list[dict[str, Any]] = [{"location": PLACE}, {}, {"unit": ""}, *({"location": text} for text in texts)]
    await store.insert(*(make_reading(1, TS + number, **said) for number, said in enumerate(more)))
    body = (await reader_client.readings(format="csv")).body.decode()
    rows = list(csv.DictReader(io.StringIO(body, newline=""), strict=True))
    found = [read_location(row["location"]) for row in rows]
    assert found == [PLACE, "", "", *texts]
    # Only the one that would read as a position is written in another form.
    assert [row["location"] for row in rows[3:]] == [
        *(texts[0], json.dumps(texts[1]), texts[2], texts[3], json.dumps(texts[4]))
    ]
    assert [line.split(",", 6)[6] for line in body.splitlines()[2:5]] == [",,,", '"",,,', ',"",,']


JSON, CSV, NDJSON = "application/json", "text/csv", "application/x-ndjson"
ACCEPTED = {
    "*/*": JSON,
    "": JSON,
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": JSON,
    "application/json": JSON,
    "text/csv": CSV,
    "TEXT/CSV; charset=utf-8": CSV,
    "application/x-ndjson": NDJSON,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
    "application/json;q=0.5, text/csv": CSV,
    "application/json;q=0.5, text/csv;q=0.4": JSON,
    "text/csv;q=0.8,application/x-ndjson;q=0.9": NDJSON,
    "text/csv ; q=0.8 , application/x-ndjson ; q=0.7": CSV,
    "text/csv;q=0": JSON,
    "text/csv;q=0, application/x-ndjson;q=0.001": NDJSON,
    "text/csv;q=much, application/x-ndjson;q=0.1": NDJSON,
    "image/png, text/csv;q=0.1": CSV,
    "text/csv;q=0.1, */*": JSON,
    "text/csv, */*;q=0.1": CSV,
    "*/*, text/csv": CSV,
    "text/*": CSV,
    "TEXT/*; q=0.5": CSV,
    "text/*, application/json;q=0.9": CSV,
    "text/*;q=0.5, application/*": JSON,
    "text/*, */*": CSV,
    "text/*, text/csv;q=0": JSON,
    "text/csv;q=0, */*;q=0.1": JSON,
    "application/*, application/json;q=0.1": NDJSON,
    "application/x-ndjson, text/csv": NDJSON,
    "text/csv, application/x-ndjson": CSV,
    "*/*;q=0, text/csv;q=0.1": CSV,
    ";,;q=,,/": JSON,
}


async def test_accept_chooses_the_form(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(1))
    for accept, kind in ACCEPTED.items():
        answer = await reader_client.fetch("/readings", series(), headers={"Accept": accept})
        assert (accept, answer.status, answer.kind) == (accept, 200, kind)


@pytest.mark.parametrize(("format_", "kind"), [("json", JSON), ("csv", CSV), ("ndjson", NDJSON)])
async def test_format_wins_over_accept(reader_client: ReaderClient, store: Store, format_: str, kind: str) -> None:
    await store.insert(make_reading(1))
    query = series(format=format_)
    for accept in (JSON, CSV, NDJSON, "image/png"):
        assert (await reader_client.fetch("/readings", query, headers={"Accept": accept})).kind == kind


@pytest.mark.parametrize("format_", ["json", "csv", "ndjson"])
async def test_head_shows_the_format_and_has_no_body(reader_client: ReaderClient, store: Store, format_: str) -> None:
    await store.insert(*(make_reading(number, TS + number) for number in range(10)))
    query = series(format=format_)
    head = await reader_client.fetch("/readings", query, method="HEAD")
    got = await reader_client.fetch("/readings", query)
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Type", "Cache-Control", "Content-Disposition"):
        assert head.headers.get(name) == got.headers.get(name)
    assert (await reader_client.fetch("/readings", query | {"limit": 0}, method="HEAD")).status == 422


@pytest.mark.parametrize(
    ("device", "sensor", "name"),
    [
        (DEVICE, SENSOR, "device-1_temperature"),
        ("a:b", "c.d", "a%3Ab_c.d"),
        ('"; x="../\r\nSet-Cookie: a', "\u00e4/\\", "%22%3B%20x%3D%22..%2F%0D%0ASet-Cookie%3A%20a_%C3%A4%2F%5C"),
    ],
)
async def test_a_stream_is_a_file_with_a_name_that_no_series_can_break_out_of(
    reader_client: ReaderClient, store: Store, device: str, sensor: str, name: str
) -> None:
    await store.insert(make_reading(1), device=device)
    for format_ in ("csv", "ndjson"):
        answer = await reader_client.readings(device, sensor, format=format_)
        assert answer.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{name}.{format_}"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in answer.headers
    assert "Content-Disposition" not in (await reader_client.readings(device, sensor)).headers
