"""Exports of any length: constant memory, no faster than they are read, and never a part that looks complete."""

import asyncio
import hashlib
import io
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bson.raw_bson import RawBSONDocument
from pyarrow import ArrowInvalid
from pyarrow.parquet import ParquetFile
from pymongo import MongoClient

from broker.embedded.broker import EmbeddedBroker
from reader.http import export
from readings.document import encode_document
from storage.places.reading import STREAM_READINGS, Places
from testing.servers.mongodb import MongoDBServer
from testing.waiting import eventually
from tests.reader.harness import (
    DEVICE,
    OWNER,
    SENSOR,
    TS,
    FakeRevocations,
    Mongo,
    ReaderClient,
    bearer,
    make_reading,
    open_reader,
    series,
    user_token,
)

MANY = 200_000
MIB = 1024 * 1024
NEIGHBOURS = ("device-0", "device-2")


@pytest.fixture(scope="module")
def many(mongodb_server: MongoDBServer) -> Iterator[Mongo]:
    """A database with a long series, between two short ones."""
    name = mongodb_server.create_database()
    with MongoClient[RawBSONDocument](mongodb_server.url, document_class=RawBSONDocument) as client:
        kept = client[name]["readings"]
        for device in NEIGHBOURS:
            kept.insert_one(RawBSONDocument(encode_document(OWNER, device, make_reading(0))))
        for start in range(0, MANY, 20_000):
            numbers = range(start, start + 20_000)
            documents = [encode_document(OWNER, DEVICE, make_reading(float(n), TS + n, 3)) for n in numbers]
            kept.insert_many([RawBSONDocument(document) for document in documents], ordered=False)
    yield mongodb_server.url, name
    mongodb_server.drop_database(name)


@asynccontextmanager
async def exported(
    reader_client: ReaderClient, format_: str, *, token: str | None = None, **query: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Request an export, and read it as it arrives."""
    queried = {name: str(value) for name, value in series(format=format_, **query).items()}
    async with reader_client.http.get(
        reader_client.url + "/readings", params=queried, headers=bearer(token or user_token())
    ) as response:
        yield response


@pytest.mark.parametrize(("format_", "order"), [("csv", "asc"), ("ndjson", "desc")])
async def test_the_reader_holds_no_more_of_a_long_export_than_a_few_batches(
    broker: EmbeddedBroker, many: Mongo, format_: str, order: str
) -> None:
    async with open_reader(broker, many) as reader_client:
        await reader_client.readings(format=format_, limit=1)  # what is made once is no part of this
        size, digest = 0, hashlib.sha256()
        tracemalloc.start()
        async with exported(reader_client, format_, order=order, to=TS + 60_000) as response:
            async for chunk in response.content.iter_any():
                size += len(chunk)
                digest.update(chunk)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    print(f"{format_} {order}: {size / MIB:.1f} MiB, at most {peak / MIB:.1f} MiB held")
    assert digest.hexdigest() == expected(format_, order, 60_000)
    # 1,000 documents and their text are 2.5 MiB; 60,000 of them would be 60.
    assert peak < 4 * MIB < size


async def test_a_long_export_is_whole(broker: EmbeddedBroker, many: Mongo) -> None:
    digest = hashlib.sha256()
    async with open_reader(broker, many) as reader_client, exported(reader_client, "csv") as response:
        async for chunk in response.content.iter_any():
            digest.update(chunk)
    assert digest.hexdigest() == expected("csv", "asc", MANY)


def expected(format_: str, order: str, count: int) -> str:
    """The expected digest of an export, computed from the numbers alone."""
    digest = hashlib.sha256()
    if format_ == "csv":
        digest.update(b"device,sensorType,ts,seq,value,receivedAt,unit,location,tags,quality\r\n")
    for number in range(count) if order == "asc" else reversed(range(count)):
        ts, received = at(number), at(number + 250)
        if format_ == "csv":
            line = f"{DEVICE},{SENSOR},{ts},3,{number}.0,{received},,,,\r\n"
        else:
            line = (
                f'{{"device":"{DEVICE}","sensorType":"{SENSOR}","ts":"{ts}","seq":3,'
                f'"value":{number}.0,"receivedAt":"{received}"}}\n'
            )
        digest.update(line.encode())
    return digest.hexdigest()


def at(ms: int) -> str:
    """A time `ms` milliseconds after 15:06:40."""
    seconds, thousandths = divmod(40_000 + ms, 1000)
    return f"2025-06-15T15:{6 + seconds // 60:02}:{seconds % 60:02}.{thousandths:03}Z"


@pytest.fixture
def queried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of readings each MongoDB query returned."""
    brought: list[int] = []
    fetch = Places.batch

    async def counted(self: Places, *arguments: Any) -> Any:
        found = await fetch(self, *arguments)
        brought.append(0 if found.columns is None else len(found.columns))
        return found

    monkeypatch.setattr(Places, "batch", counted)
    return brought


@asynccontextmanager
async def unread(reader_client: ReaderClient) -> AsyncIterator[socket.socket]:
    """Request an export over a socket with a small buffer that is never read."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", reader_client.port))
        head = f"GET /readings?device={DEVICE}&sensorType={SENSOR}&format=csv HTTP/1.1\r\nHost: x\r\n"
        await loop.sock_sendall(client, f"{head}Authorization: Bearer {user_token()}\r\n\r\n".encode())
        yield client


async def test_nothing_is_read_ahead_for_a_client_that_does_not_read(
    broker: EmbeddedBroker, many: Mongo, queried: list[int]
) -> None:
    async with open_reader(broker, many) as reader_client, unread(reader_client):

        async def waits() -> bool:
            before = len(queried)
            await asyncio.sleep(0.3)  # a hundred times what one batch takes
            return 0 < len(queried) == before

        await eventually(waits, "the reader stops querying MongoDB")
        assert sum(queried) < MANY * 0.75
        assert max(queried) <= STREAM_READINGS


async def test_a_client_that_does_not_read_is_cut_off_and_its_place_is_free(
    broker: EmbeddedBroker, many: Mongo, queried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "UNREAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr("reader.app.QUERY_WAIT_S", 0.0)
    async with open_reader(broker, many, max_exports_per_owner=1) as reader_client, unread(reader_client):

        async def begun() -> bool:
            return len(queried) > 1

        async def free() -> bool:
            return (await reader_client.readings(limit=1, format="csv")).status == 200

        await eventually(begun, "the export has begun")
        assert (await reader_client.readings(limit=1, format="csv")).status == 429
        await eventually(free, "its place is free")


@pytest.mark.parametrize("format_", ["csv", "parquet"])
async def test_a_client_that_leaves_ends_its_export(
    broker: EmbeddedBroker, many: Mongo, queried: list[int], monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr("reader.history.parquet.ROW_GROUP_ROWS", 5000)
    async with open_reader(broker, many, max_exports_per_owner=1) as reader_client:
        async with exported(reader_client, format_) as response:
            await response.content.readany()
            response.close()

        async def free() -> bool:
            return (await reader_client.readings(limit=1, format="csv")).status == 200

        await eventually(free, "its place is free")
        assert sum(queried) < MANY


@pytest.mark.parametrize("query", [{"format_": "csv", "end": "true"}, {"format_": "parquet"}], ids=["csv", "parquet"])
async def test_an_export_that_loses_mongodb_is_seen_to_be_incomplete(
    broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: dict[str, str]
) -> None:
    monkeypatch.setattr("reader.history.parquet.ROW_GROUP_ROWS", 1000)
    with MongoDBServer(tmp_path / "mongod") as server:
        documents = [encode_document(OWNER, DEVICE, make_reading(1.5, TS + number)) for number in range(50_000)]
        with MongoClient[RawBSONDocument](server.url) as client:
            client["own"]["readings"].insert_many([RawBSONDocument(document) for document in documents])
        async with open_reader(broker, (server.url, "own"), query_timeout_seconds=2.0) as reader_client:
            async with exported(reader_client, **query) as response:
                assert response.status == 200
                chunks = [await response.content.readany()]
                server.kill()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await read_into(chunks, response)
                assert chunks[0]
                assert b"# end" not in b"".join(chunks)
                with pytest.raises(ArrowInvalid, match="Parquet"):
                    ParquetFile(io.BytesIO(b"".join(chunks)))
            assert reader_client.count("failures_total") == 1
            answer = await reader_client.readings(format=query["format_"])
            assert (answer.status, answer.kind) == (503, "application/problem+json")


async def read_into(chunks: list[bytes], response: aiohttp.ClientResponse) -> None:
    while chunk := await response.content.readany():
        chunks.append(chunk)


@pytest.mark.parametrize("how", ["expired", "revoked"])
async def test_an_export_does_not_outlive_its_token(
    broker: EmbeddedBroker, many: Mongo, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    fetch, listing = Places.batch, FakeRevocations()

    async def slow(self: Places, *arguments: Any) -> Any:
        await asyncio.sleep(0.05)
        return await fetch(self, *arguments)

    monkeypatch.setattr(Places, "batch", slow)
    expires_at = int(time.time()) + (2 if how == "expired" else 600)
    async with (
        open_reader(broker, many, revocations=listing.polling()) as reader_client,
        exported(reader_client, "csv", token=user_token(exp=expires_at)) as response,
    ):
        assert await response.content.readany()
        ends_by = time.time() + 5 if how == "revoked" else expires_at + 5
        if how == "revoked":
            listing.revoke("jti", "jti-1")
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
        assert time.time() < ends_by
