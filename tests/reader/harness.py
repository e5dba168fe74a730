"""A reader on a real port, over a real database, and a client for it."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry
from yarl import URL

from access.revocations import RevocationList
from access.tokens import KeySet
from broker.interface import Broker
from persister.to_mongodb import ToMongoDB
from reader.app import Reader, reader_service
from reader.from_auth import FetchDevices
from reader.settings import ReaderSettings
from readings.document import encode_document
from readings.reading import MAX_TEXT, Reading
from runtime.http.listen import listen
from runtime.http.problems import problem_middleware
from testing.issuer import ISSUER, Issuer

ISSUING = Issuer()
Mongo = tuple[str, str]
JSON = dict[str, Any]

TS = 1_750_000_000_000  # 2025-06-15T15:06:40Z
OWNER, DEVICE, SENSOR = "user-1", "device-1", "temperature"
# Stored values of every type.
VALUES: list[Any] = [
    *(1.5, 0.0, -0.0, 1e300, 5e-324, -123.456789012345, 0.1 + 0.2, 21.0),
    *(0, 1, -1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63)),
    *(True, False),
    *(
        "",
        "closed",
        "1",
        "true",
        'he said "no"',
        "a,b;c",
        "\u00e4\u00f6\u00fc \U0001f321 \u65e5\u672c",
        "\u2028",
        "x" * MAX_TEXT,
    ),
    # Gateways reject these; a database may contain them, from before or from a manual write.
    *("line\nline", "line\r\nline", "tab\tnul\x00end"),
]
# Documents per write, as in persisters.
DOCUMENTS_PER_WRITE = 4000


def user_token(owner: str = OWNER, **claims: Any) -> str:
    return ISSUING.user(**{"sub": owner, "owner": owner} | claims)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Response:
    """A response, read to its end."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.kind = response.content_type
        self.body = body

    @property
    def json(self) -> JSON:
        found: JSON = json.loads(self.body)
        return found

    @property
    def items(self) -> list[JSON]:
        assert self.status == 200, self.body
        return list(self.json["items"])

    @property
    def invalid_fields(self) -> list[str]:
        """The parameters named by a 422."""
        assert (self.status, self.kind) == (422, "application/problem+json"), (self.status, self.body)
        assert all(error["code"] and error["message"] for error in self.json["errors"])
        return [error["field"] for error in self.json["errors"]]


class ReaderClient:
    """A client of a reader that runs in this process."""

    def __init__(self, port: int, registry: CollectorRegistry, http: aiohttp.ClientSession, service: Reader) -> None:
        self.port = port
        self.checks = service.checks
        self.end_feeds = service.end_feeds
        self.calls = service.calls
        self.url = f"http://127.0.0.1:{port}"
        self.registry = registry
        self.http = http

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"tidegate_reader_{name}", labels) or 0.0

    async def fetch(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        method: str = "GET",
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request as user-1, unless a token is given."""
        make_reading = bearer(user_token() if token is None else token) | dict(headers or {})
        url = URL(self.url + path).with_query({name: str(value) for name, value in (query or {}).items()})
        async with self.http.request(method, url, headers=make_reading) as response:
            return Response(response, await response.read())

    async def readings(self, device: str = DEVICE, sensor_type: str = SENSOR, **query: Any) -> Response:
        """Get the history of one series; `from_` is the parameter `from`."""
        return await self.fetch("/readings", series(device, sensor_type, **query))

    async def all_pages(self, path: str, query: Mapping[str, Any]) -> list[list[JSON]]:
        """Follow cursors to the end; return the items of each page."""
        pages: list[list[JSON]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await self.fetch(path, {**query, **cursor})
            pages.append(answer.items)
            if "nextCursor" not in answer.json:
                return pages
            cursor = {"cursor": answer.json["nextCursor"]}
            assert len(pages) < 10_000


def series(device: str = DEVICE, sensor_type: str = SENSOR, **query: Any) -> dict[str, Any]:
    return {"device": device, "sensorType": sensor_type, **{name.rstrip("_"): given for name, given in query.items()}}


@asynccontextmanager
async def open_reader(
    broker: Broker,
    mongo: Mongo,
    *,
    keys: KeySet | None = None,
    revocations: RevocationList | None = None,
    devices: FetchDevices | None = None,
    **settings: Any,
) -> AsyncIterator[ReaderClient]:
    chosen = ReaderSettings(
        broker_url="embedded://unused",
        auth_url="http://unused",
        readings_url=mongo[0],
        readings_database=mongo[1],
        token_issuer=ISSUER,
        **settings,
    )
    registry = CollectorRegistry()
    app = web.Application(middlewares=[problem_middleware])
    async with (
        aiohttp.ClientSession() as http,
        (RevocationList(no_revocations) if revocations is None else revocations).kept_fresh() as listed,
        reader_service(
            chosen,
            broker=broker,
            keys=keys or KeySet(jwks, at_most_every_s=0.01),
            revocations=listed,
            devices=devices or no_devices,
            registry=registry,
        ) as service,
    ):
        service.add_routes(app)
        async with listen(app, "127.0.0.1", 0) as port:
            yield ReaderClient(port, registry, http, service)


async def jwks() -> dict[str, Any]:
    return ISSUING.jwks()


async def no_revocations(_: str | None) -> bytes:
    return b'{"items":[],"cursor":"0"}'


async def no_devices(_: str, __: str, ___: str | None) -> bytes:
    return b'{"items":[]}'


class FakeRevocations:
    """A stub of auth's list of revocations."""

    def __init__(self) -> None:
        self.items: list[JSON] = []

    def revoke(self, kind: str, name: str, **more: Any) -> None:
        self.items.append({"kind": kind, "id": name, "until": "2040-01-01T00:00:00.000Z", **more})

    async def fetch(self, _: str | None) -> bytes:
        return json.dumps({"items": self.items, "cursor": str(len(self.items))}).encode()

    def polling(self) -> RevocationList:
        return RevocationList(self.fetch, every_s=0.1)


def make_reading(value: Any = 1.5, ts: int = TS, seq: int = 0, *, sensor: str = SENSOR, **more: Any) -> Reading:
    """A reading as validated by a gateway, received 250 ms after `ts`."""
    return Reading(sensor, value, ts, seq, more.pop("received_ms", ts + 250), **more)


class Store:
    """Stores readings as persisters do."""

    def __init__(self, to_mongodb: ToMongoDB) -> None:
        self.to_mongodb = to_mongodb

    async def insert(self, *readings: Reading, device: str = DEVICE, owner: str = OWNER) -> list[bytes]:
        """Store readings of one device and their series; return the documents."""
        documents = [encode_document(owner, device, reading) for reading in readings]
        await self.write(documents)
        await self.insert_series(((device, reading.sensor_type) for reading in readings), owner)
        return documents

    async def write(self, documents: list[bytes]) -> None:
        for start in range(0, len(documents), DOCUMENTS_PER_WRITE):
            await self.to_mongodb.write(documents[start : start + DOCUMENTS_PER_WRITE])

    async def insert_series(self, names: Iterable[tuple[str, str]], owner: str = OWNER) -> None:
        keys = [{"owner": owner, "device": device, "sensorType": sensor} for device, sensor in sorted(set(names))]
        await self.to_mongodb.write_series(keys)


@asynccontextmanager
async def open_store(mongo: Mongo, *, clustered: bool = False) -> AsyncIterator[Store]:
    async with ToMongoDB.connected(*mongo, clustered=clustered, timeout_s=10) as connected:
        await connected.prepare()
        yield Store(connected)
