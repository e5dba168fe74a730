"""Exports of several series, or of all that an owner has: CSV, NDJSON and Parquet in one order, whole, and bounded."""

import csv
import io
import itertools
import json
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from storage.places.reading import Places
from tests.reader.harness import (
    DEVICE,
    ISSUING,
    OWNER,
    SENSOR,
    TS,
    Mongo,
    ReaderClient,
    Response,
    Store,
    make_reading,
    open_reader,
    user_token,
)
from tests.reader.parquet_tables import table_of, value_of

FORMATS = ["csv", "ndjson", "parquet"]
DEVICES, SENSORS = ("d-1", "d-10", "d-2", "\u00e4"), ("Door", "door", "humidity", "temperature")
EACH = 30
# In the order of an export: device, sensorType, ts, seq.
Row = tuple[str, str, int, int]
ALL: list[Row] = [
    (device, sensor, TS + 1000 * number + n // 3, n % 3)
    for number, device in enumerate(DEVICES)
    for sensor in SENSORS
    for n in range(EACH)
]


@pytest.fixture
async def filled(reader_client: ReaderClient, store: Store) -> ReaderClient:
    """Sixteen series, whose devices measured one after the other, stored in another order, beside those of others."""
    for (device, sensor), rows in reversed(
        [(key, list(rows)) for key, rows in itertools.groupby(ALL, lambda row: row[:2])]
    ):
        await store.insert(
            *(make_reading(seq, ts, seq, sensor=sensor) for _, _, ts, seq in reversed(rows)), device=device
        )
    for owner in ("user-0", "user-2"):
        for device in (*DEVICES, "theirs"):
            await store.insert(make_reading(424242, TS, sensor=SENSORS[0]), device=device, owner=owner)
    return reader_client


def rows_of(answer: Response, format_: str) -> list[Row]:
    assert answer.status == 200, answer.body
    if format_ == "parquet":
        table = table_of(answer.body)
        times = table["ts"].cast("int64").to_pylist()
        rows = table.to_pylist()
        assert [value_of(row) for row in rows] == [row["seq"] for row in rows]
        return [(row["device"], row["sensorType"], ts, row["seq"]) for row, ts in zip(rows, times, strict=True)]
    text = answer.body.decode()
    if format_ == "csv":
        items: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    else:
        items = [json.loads(line) for line in text.splitlines()]
    assert [int(item["value"]) for item in items] == [int(item["seq"]) for item in items]
    return [(item["device"], item["sensorType"], ms(item["ts"]), int(item["seq"])) for item in items]


def ms(text: str) -> int:
    """Milliseconds since 1970 of a time within a minute of TS, 15:06:40."""
    minutes, seconds = text[14:16], text[17:23]
    return TS + round((int(minutes) * 60 + float(seconds) - 400) * 1000)


async def exported(reader_client: ReaderClient, format_: str, **query: Any) -> list[Row]:
    query = {name.rstrip("_"): value for name, value in query.items()}
    return rows_of(await reader_client.fetch("/readings", query | {"format": format_}), format_)


@pytest.mark.parametrize("format_", FORMATS)
async def test_without_names_an_export_has_all_that_the_owner_has_in_order(filled: ReaderClient, format_: str) -> None:
    assert await exported(filled, format_) == ALL
    assert filled.count("readings_total", how="export") == len(ALL)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("devices", "sensors"),
    [
        (["d-10"], None),
        (None, ["door"]),
        (["d-2", "d-1"], None),
        (None, ["temperature", "Door"]),
        (["d-2", "d-1"], ["temperature", "Door"]),
        (["d-2"], ["temperature", "Door"]),
        (["d-2", "\u00e4"], ["temperature"]),
        (["d-2", "d-2"], ["temperature", "temperature"]),
        (["d-1", "d-2", "d-1"], ["door", "door"]),
        (["d-1"], ["unknown", "door"]),
        (None, ["unknown"]),
    ],
)
async def test_names_may_be_given_several_times_or_left_out(
    filled: ReaderClient, format_: str, devices: list[str] | None, sensors: list[str] | None
) -> None:
    names = {} if devices is None else {"device": devices}
    names |= {} if sensors is None else {"sensorType": sensors}
    expected = [row for row in ALL if (devices is None or row[0] in devices) and (sensors is None or row[1] in sensors)]
    assert await exported(filled, format_, **names) == expected
    assert bool(expected) == (sensors != ["unknown"])


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_range_of_time_and_a_limit_apply_to_all_of_them(filled: ReaderClient, format_: str) -> None:
    for from_, to in ((TS + 1002, TS + 2004), (TS + 1002, None), (None, TS + 1), (TS + 5, TS + 5), (TS + 9000, None)):
        bounds = {name: value for name, value in (("from_", from_), ("to", to)) if value is not None}
        expected = [row for row in ALL if (from_ is None or row[2] >= from_) and (to is None or row[2] < to)]
        assert await exported(filled, format_, **bounds) == expected
        assert await exported(filled, format_, limit=50, **bounds) == expected[:50]
    for limit in (1, EACH - 1, EACH, EACH + 1, len(ALL), 1000):
        assert await exported(filled, format_, limit=limit) == ALL[:limit]


@pytest.mark.parametrize("format_", ["csv", "ndjson"])
async def test_the_last_line_counts_all_of_them(filled: ReaderClient, format_: str) -> None:
    answer = await filled.fetch("/readings", {"format": format_, "end": "true"})
    last = f"# end {len(ALL)}\r\n" if format_ == "csv" else f'{{"end":true,"count":{len(ALL)}}}\n'
    assert answer.body.endswith(last.encode())


@pytest.mark.parametrize("size", [1, 3, 4, 16, 17])
async def test_many_series_are_listed_a_part_at_a_time(
    filled: ReaderClient, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("reader.history.selection.SERIES_PER_PAGE", size)
    assert await exported(filled, "csv") == ALL
    assert await exported(filled, "csv", sensorType="door") == [row for row in ALL if row[1] == "door"]
    assert await exported(filled, "csv", device="d-1", to=TS + 5) == [row for row in ALL if row[2] < TS + 5]
    assert await exported(filled, "csv", device=["d-2", "d-10"]) == [row for row in ALL if row[0] in ("d-10", "d-2")]


async def test_series_without_a_reading_in_the_range_are_not_queried_one_by_one(
    filled: ReaderClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, queried = Places.batch, 0

    async def counted(self: Places, *arguments: Any) -> Any:
        nonlocal queried
        queried += 1
        return await fetch(self, *arguments)

    monkeypatch.setattr(Places, "batch", counted)
    assert await exported(filled, "csv", from_=TS + 9000) == []
    assert queried == 0
    assert len(await exported(filled, "csv", from_=TS + 1000, to=TS + 1001)) == 3 * len(SENSORS)
    assert queried == len(SENSORS)


async def test_an_owner_without_readings_gets_an_empty_export(filled: ReaderClient) -> None:
    for format_ in FORMATS:
        for query in ({}, {"sensorType": ["door", "humidity"]}, {"from": TS}):
            answer = await filled.fetch("/readings", query | {"format": format_}, token=user_token("nobody"))
            assert rows_of(answer, format_) == []


@pytest.mark.parametrize("format_", FORMATS)
async def test_one_unknown_device_among_known_ones_is_404_before_anything_is_sent(
    filled: ReaderClient, format_: str
) -> None:
    for query in (
        {"device": "theirs"},
        {"device": ["d-1", "theirs"]},
        {"device": ["d-1", "theirs"], "sensorType": "door"},
    ):
        for method in ("GET", "HEAD"):
            answer = await filled.fetch("/readings", query | {"format": format_}, method=method)
            assert (answer.status, answer.kind) == (404, "application/problem+json"), query
            assert "Content-Disposition" not in answer.headers
        problem = (await filled.fetch("/readings", query | {"format": format_})).json
        assert problem["code"] == "no_such_device"
        assert ("'theirs'" in problem["detail"]) == (query["device"] != "theirs")


async def test_a_page_of_json_requires_one_of_each(filled: ReaderClient) -> None:
    for query, fields in (
        ({}, ["device", "sensorType"]),
        ({"device": "d-1"}, ["sensorType"]),
        ({"device": ["d-1", "d-2"], "sensorType": "door"}, ["device"]),
        ({"device": ["d-1", "d-1"], "sensorType": "door"}, ["device"]),
        ({"device": ["d-1", "d-2"], "sensorType": ["door", "humidity"], "limit": 0}, ["device", "sensorType", "limit"]),
    ):
        for format_ in ({}, {"format": "json"}):
            answer = await filled.fetch("/readings", query | format_)
            assert answer.invalid_fields == fields
    buckets = await filled.fetch("/readings/buckets", {"device": ["d-1", "d-2"], "sensorType": "door"})
    assert buckets.invalid_fields == ["device"]


@pytest.mark.parametrize("format_", FORMATS)
async def test_what_only_one_series_has_is_refused_for_several(filled: ReaderClient, format_: str) -> None:
    one = {"device": "d-1", "sensorType": "door"}
    cursor = (await filled.fetch("/readings", one | {"limit": 1})).json["nextCursor"]
    assert (
        len(rows_of(await filled.fetch("/readings", one | {"cursor": cursor, "format": format_}), format_)) == EACH - 1
    )
    for names in ({}, {"device": "d-1"}, {"sensorType": "door"}, {"device": ["d-1", "d-2"], "sensorType": "door"}):
        for name, value in (("order", "desc"), ("cursor", cursor)):
            answer = await filled.fetch("/readings", names | {name: value, "format": format_})
            assert answer.invalid_fields == [name]
        assert (await filled.fetch("/readings", names | {"order": "asc", "format": format_})).status == 200


async def test_a_name_in_another_form_is_named_and_so_are_too_many(filled: ReaderClient) -> None:
    for name in ("device", "sensorType"):
        for value in (["d-1", ""], "", "x" * 257, ["d-1", "x" * 257], [str(number) for number in range(101)]):
            answer = await filled.fetch("/readings", {name: value, "format": "csv"})
            assert answer.invalid_fields == [name]
    types = ["door", *(f"unknown-{number}" for number in range(99))]
    assert len(await exported(filled, "csv", sensorType=types)) == EACH * len(DEVICES)


@pytest.mark.parametrize(
    ("names", "file"),
    [
        ({}, "readings"),
        ({"device": "d-1"}, "d-1"),
        ({"sensorType": "door"}, "door"),
        ({"device": ["d-1", "d-2"], "sensorType": "door"}, "door"),
        ({"device": ["d-1", "d-2"]}, "readings"),
        ({"device": ["d-1", "d-1"], "sensorType": "door"}, "d-1_door"),
    ],
)
async def test_what_all_rows_have_in_common_names_the_file(
    filled: ReaderClient, names: dict[str, Any], file: str
) -> None:
    for format_ in FORMATS:
        for method in ("GET", "HEAD"):
            answer = await filled.fetch("/readings", names | {"format": format_}, method=method)
            assert answer.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{file}.{format_}"


async def test_a_devices_token_may_not_export(filled: ReaderClient) -> None:
    token = ISSUING.device(sub=DEVICE, device=DEVICE, owner=OWNER)
    for format_ in FORMATS:
        for names in ({}, {"device": "d-1", "sensorType": SENSOR}):
            answer = await filled.fetch("/readings", names | {"format": format_}, token=token)
            assert (answer.status, answer.kind) == (403, "application/problem+json")


async def test_a_series_without_a_cell_in_common_is_quoted_as_its_own(
    reader_client: ReaderClient, store: Store
) -> None:
    for device in ("=1", 'a,"b"', "plain"):
        await store.insert(make_reading("=x", sensor="s"), device=device)
    text = (await reader_client.fetch("/readings", {"format": "csv"})).body.decode()
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert [row[0] for row in rows] == ["device", "=1", 'a,"b"', "plain"]
    text = (await reader_client.fetch("/readings", {"format": "csv", "for": "spreadsheet"})).body.decode()
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert [(row[0], row[4]) for row in rows[1:]] == [("'=1", "'=x"), ('a,"b"', "'=x"), ("plain", "'=x")]


async def test_an_export_of_everything_is_one_export_at_its_limit(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reader.app.QUERY_WAIT_S", 0.0)
    await store.insert(make_reading(0))
    async with open_reader(broker, mongodb_database, max_exports_per_owner=1) as reader_client:
        fetch = Places.batch
        answers: list[Response] = []

        async def within(self: Places, *arguments: Any) -> Any:
            if not answers:
                answers.append(await reader_client.fetch("/readings", {"format": "parquet"}))
            return await fetch(self, *arguments)

        monkeypatch.setattr(Places, "batch", within)
        assert len(rows_of(await reader_client.fetch("/readings", {"format": "ndjson"}), "ndjson")) == 1
        assert (answers[0].status, answers[0].json["code"]) == (429, "rate_limited")
        assert (await reader_client.fetch("/readings", {"format": "parquet"})).status == 200
