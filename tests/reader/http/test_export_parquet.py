"""`GET /readings` as Parquet over a database: what was stored, in constant memory, and nobody waits for it."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import bson
import pyarrow
import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from broker.embedded.broker import EmbeddedBroker
from reader.history.arrow_arrays import PARQUET_COLUMNS
from reader.history.parquet import ROW_GROUP_ROWS, ParquetRows
from reader.history.selection import SeriesRows
from reader.http import export
from reader.http.export_format import PARQUET, Encoder, ExportFormat
from readings.document import encode_document
from readings.keys import series_key
from storage.codec.from_documents import columns_of
from storage.places.reading import STREAM_READINGS
from testing.servers.mongodb import MongoDBServer
from testing.waiting import eventually
from tests.reader.harness import (
    OWNER,
    TS,
    VALUES,
    Mongo,
    ReaderClient,
    Store,
    bearer,
    make_reading,
    open_reader,
    series,
    user_token,
)
from tests.reader.parquet_tables import row_groups_of, table_of, value_of

MANY = 200_000
SERIES = 20
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def many(mongodb_server: MongoDBServer) -> Iterator[Mongo]:
    """A database with twenty series of one owner."""
    name = mongodb_server.create_database()
    with MongoClient[RawBSONDocument](mongodb_server.url, document_class=RawBSONDocument) as client:
        for number in range(SERIES):
            sensor = f"s-{number:02}"
            documents = [
                encode_document(OWNER, "device", make_reading(n / 8, TS + n, sensor=sensor))
                for n in range(MANY // SERIES)
            ]
            client[name]["readings"].insert_many([RawBSONDocument(document) for document in documents], ordered=False)
            key = bson.encode({"_id": series_key(OWNER, "device", sensor)})
            client[name]["series"].insert_one(RawBSONDocument(key))
    yield mongodb_server.url, name
    mongodb_server.drop_database(name)


async def test_a_file_is_what_json_has(reader_client: ReaderClient, store: Store) -> None:
    more: list[dict[str, Any]] = [{}, {"unit": "\u00b0C", "location": "hall"}, {"tags": {"a": "b"}, "quality": "bad"}]
    await store.insert(*(make_reading(value, TS + n, **more[n % 3]) for n, value in enumerate(VALUES)))
    items = (await reader_client.readings(limit=1000)).items
    answer = await reader_client.readings(format="parquet")
    assert answer.headers["Content-Type"] == "application/vnd.apache.parquet"
    rows = table_of(answer.body).to_pylist()
    assert tuple(rows[0]) == PARQUET_COLUMNS
    assert [repr(value_of(row)) for row in rows] == [repr(value) for value in VALUES]
    for row, item in zip(rows, items, strict=True):
        for name in ("ts", "receivedAt"):
            assert row[name].isoformat(timespec="milliseconds").replace("+00:00", "Z") == item[name]
        for name in ("device", "sensorType", "seq"):
            assert row[name] == item[name]
        for name in ("unit", "quality"):
            assert row[name] == item.get(name)


async def test_a_range_an_order_and_a_limit_apply_as_to_csv(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(number, TS + number) for number in range(2500)))

    async def found(**query: Any) -> list[int]:
        table = table_of((await reader_client.readings(format="parquet", **query)).body)
        return list(table["valueInteger"].to_pylist())

    assert await found() == list(range(2500))
    assert await found(order="desc") == list(range(2500))[::-1]
    assert await found(from_=TS + 100, to=TS + 1300) == list(range(100, 1300))
    assert await found(limit=999) == list(range(999))
    cursor = (await reader_client.readings(limit=700)).json["nextCursor"]
    assert await found(cursor=cursor) == list(range(700, 2500))
    assert await found(from_=TS + 5000) == []


async def test_parameters_of_other_formats_are_refused(reader_client: ReaderClient) -> None:
    assert (await reader_client.readings(format="parquet", end="true")).invalid_fields == ["end"]
    assert (await reader_client.readings(format="parquet", for_="spreadsheet")).invalid_fields == ["for"]


async def test_a_long_export_arrives_in_row_groups_and_holds_one(broker: EmbeddedBroker, many: Mongo) -> None:
    pool = pyarrow.default_memory_pool()
    async with open_reader(broker, many) as reader_client:
        before, first = pool.bytes_allocated(), b""
        peak, parts = 0, []
        query = {"format": "parquet"}
        async with reader_client.http.get(
            f"{reader_client.url}/readings", params=query, headers=bearer(user_token())
        ) as response:
            async for chunk in response.content.iter_any():
                first = first or chunk
                parts.append(chunk)
                peak = max(peak, pool.bytes_allocated() - before)
        read_when_first_came = reader_client.count("readings_total", how="export")
    file = b"".join(parts)
    assert first.startswith(b"PAR1")
    assert read_when_first_came == MANY
    groups = row_groups_of(file)
    assert sum(groups) == MANY
    assert max(groups) < ROW_GROUP_ROWS + STREAM_READINGS
    table = table_of(file)
    assert table["sensorType"].to_pylist() == [f"s-{n // (MANY // SERIES):02}" for n in range(MANY)]
    assert table["valueNumber"].to_pylist() == [n % (MANY // SERIES) / 8 for n in range(MANY)]
    print(f"{len(file) / MIB:.1f} MiB, at most {peak / MIB:.1f} MiB held")
    assert peak < 12 * MIB


async def test_the_response_begins_before_the_last_row_is_read(
    broker: EmbeddedBroker, many: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reader.history.parquet.ROW_GROUP_ROWS", 2000)
    monkeypatch.setattr(export, "PIECE_BYTES", 1024)
    async with (
        open_reader(broker, many) as reader_client,
        reader_client.http.get(
            f"{reader_client.url}/readings", params={"format": "parquet"}, headers=bearer(user_token())
        ) as response,
    ):
        assert await response.content.readexactly(4096)
        assert 0 < reader_client.count("readings_total", how="export") < MANY


async def test_others_are_answered_while_a_row_group_is_encoded(
    broker: EmbeddedBroker, many: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, go, encoding = ParquetRows.take_row_group, threading.Event(), threading.Event()

    def held(self: ParquetRows) -> bytes:
        encoding.set()
        assert go.wait(60)
        return encode(self)

    monkeypatch.setattr(ParquetRows, "take_row_group", held)
    try:
        async with open_reader(broker, many) as reader_client:
            query = {"format": "parquet", "sensorType": "s-03"}
            answer = asyncio.ensure_future(reader_client.fetch("/readings", query))

            async def begun() -> bool:
                return encoding.is_set()

            await eventually(begun, "the row group is being encoded")
            page = await reader_client.fetch("/readings", series("device", "s-03", limit=1))
            assert len(page.items) == 1
            csv = await reader_client.fetch("/readings", {"format": "csv", "sensorType": "s-03"})
            assert csv.body.count(b"\n") == MANY // SERIES + 1
            assert not answer.done()
            go.set()
            assert table_of((await answer).body).num_rows == MANY // SERIES
    finally:
        go.set()


async def test_a_failure_to_encode_is_no_whole_file(
    broker: EmbeddedBroker, many: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = ParquetRows.take_row_group, 0

    def fails(self: ParquetRows) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise MemoryError("no more")
        return encode(self)

    monkeypatch.setattr("reader.history.parquet.ROW_GROUP_ROWS", 2000)
    monkeypatch.setattr(ParquetRows, "take_row_group", fails)
    async with open_reader(broker, many, max_exports_per_owner=1) as reader_client:
        with pytest.raises(aiohttp.ClientPayloadError):
            await reader_client.fetch("/readings", {"format": "parquet"})
        assert (await reader_client.fetch("/readings", {"format": "csv", "limit": 1})).status == 200


def test_pyarrow_is_imported_by_no_process_that_encodes_nothing() -> None:
    code = "import sys, onebox.pipeline, reader.app, reader.http.export; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_many_exports_share_the_memory_of_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reader.http.export_format.ROW_GROUPS_BYTES", 1_000_000)
    documents = [encode_document(OWNER, "d", make_reading(1.5, TS + n)) for n in range(1000)]
    columns = columns_of(b"".join(documents), 1)

    async def rows_of_a_group(encoder: Encoder) -> int:
        for number in range(1, 60):
            if await encoder.encode(SeriesRows("d", "s", columns)):
                return number * 1000
        return 0

    encoders = [(await ExportFormat(PARQUET).encoder())[0] for _ in range(10)]
    small = await rows_of_a_group(encoders[0])
    del encoders[1:]
    assert 0 < small * 5 < await rows_of_a_group(encoders[0])
