"""The cost of searches: lists are built once for concurrent requests, cached and bounded; also while auth is down."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web

from broker.embedded.broker import EmbeddedBroker
from reader.from_auth import DevicesUnavailable, FromAuth, fetch_devices_over_http
from reader.history import catalogue_cache
from reader.history.catalogue import build_catalogue
from reader.history.from_mongodb import FromMongoDB
from runtime.http.listen import listen
from runtime.lru_cache import ENTRY_WEIGHT
from storage.places.newest import Newest
from testing.waiting import eventually
from tests.reader.auth_stub import MANAGE_SCOPE, AuthStub, labels, search
from tests.reader.harness import ISSUING, SENSOR, Mongo, ReaderClient, Store, make_reading, open_reader, user_token


class QueryCounter:
    """Counts queries to MongoDB, and can hold some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lists: list[str] = []
        self.newest: list[int] = []
        self.held: dict[str, asyncio.Event] = {}
        list_, newest = FromMongoDB.series_documents, Newest.of

        async def listed(history: FromMongoDB, owner: str, most: int, within: Any) -> list[bytes]:
            self.lists.append(owner)
            if owner in self.held:
                await self.held[owner].wait()
            return await list_(history, owner, most, within)

        async def queries(history: Newest, owner: str, series: Any) -> Any:
            self.newest.append(len(series))
            return await newest(history, owner, series)

        monkeypatch.setattr(FromMongoDB, "series_documents", listed)
        monkeypatch.setattr(Newest, "of", queries)


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> QueryCounter:
    return QueryCounter(monkeypatch)


@pytest.fixture
def auth() -> AuthStub:
    return AuthStub()


@pytest.fixture
async def keeping(
    broker: EmbeddedBroker, mongodb_database: Mongo, auth: AuthStub, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ReaderClient]:
    """A reader that caches its lists for the whole test."""
    monkeypatch.setattr(catalogue_cache, "MIN_TTL_S", 60.0)
    async with open_reader(broker, mongodb_database, devices=auth.fetch) as reader_client:
        yield reader_client


@pytest.fixture
async def looking(
    broker: EmbeddedBroker, mongodb_database: Mongo, auth: AuthStub, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ReaderClient]:
    """A reader that rebuilds its lists for each request."""
    monkeypatch.setattr(catalogue_cache, "MIN_TTL_S", 0.0)
    monkeypatch.setattr(catalogue_cache, "TTL_FACTOR", 0)
    async with open_reader(broker, mongodb_database, devices=auth.fetch) as reader_client:
        yield reader_client


async def test_twenty_thousand_series_are_listed_once_and_a_page_is_one_question(
    keeping: ReaderClient, store: Store, auth: AuthStub, queries: QueryCounter
) -> None:
    await store.insert_series((f"d-{number:05d}", "t") for number in range(20_000))
    for number in range(9):
        auth.add(f"d-{number:05d}", f"press-{number}")
    first = await search(keeping)
    assert (first["total"], first["devices"], len(first["items"])) == (20_000, 20_000, 50)
    assert (queries.lists, queries.newest, len(auth.requests)) == (["user-1"], [50], 3)
    for query in ({"offset": 19_990}, {"offset": 10_000}, {"text": "press"}, {"text": "nothing"}, {"limit": 200}):
        await search(keeping, **query)
    assert (queries.lists, len(auth.requests)) == (["user-1"], 3)
    assert queries.newest == [50, 10, 50, 9, 50, 50, 50, 50]
    assert keeping.count("catalogue_seconds_count") == 1
    assert keeping.count("catalogue_series") == 20_000


async def test_however_many_ask_at_once_a_list_is_made_once(
    keeping: ReaderClient, store: Store, auth: AuthStub, queries: QueryCounter
) -> None:
    await store.insert(make_reading(1))
    answers = await asyncio.gather(*(search(keeping) for _ in range(20)))
    assert {answer["total"] for answer in answers} == {1}
    assert (len(queries.lists), len(auth.requests)) == (1, 1)


class Clock:
    """The cache's clock, which a test may advance."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


async def test_a_list_that_is_old_is_shown_while_the_next_one_is_made_and_one_that_is_older_is_not(
    keeping: ReaderClient, store: Store, queries: QueryCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("reader.history.catalogue_cache.time", clock)
    await store.insert(make_reading(1))
    assert (await search(keeping))["total"] == 1
    await store.insert(make_reading(1), device="d-2")
    clock.ahead_s = 0.9 * catalogue_cache.MIN_TTL_S
    assert (await search(keeping))["total"] == 1
    assert len(queries.lists) == 1
    clock.ahead_s = 1.5 * catalogue_cache.MIN_TTL_S
    queries.held["user-1"] = asyncio.Event()
    for _ in range(2):
        assert (await search(keeping))["total"] == 1  # nobody waits for it
    queries.held["user-1"].set()

    async def seen() -> bool:
        return bool((await search(keeping))["total"] == 2)

    await eventually(seen, "what is new is seen")
    assert len(queries.lists) == 2
    await store.insert(make_reading(1), device="d-3")
    clock.ahead_s += 3 * catalogue_cache.MIN_TTL_S
    assert (await search(keeping))["total"] == 3


async def test_pages_keep_their_order_while_series_come(keeping: ReaderClient, store: Store) -> None:
    await store.insert_series((f"d-{number}", "t") for number in range(10))
    first = await labels(keeping, limit=5)
    await store.insert_series([("a", "t"), ("d-3a", "t")])
    assert first + await labels(keeping, offset=5, limit=50) == [(f"d-{number}", "t") for number in range(10)]


async def test_what_has_not_changed_is_not_sorted_again(
    looking: ReaderClient, store: Store, auth: AuthStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal made
        made += 1
        return build_catalogue(*arguments, **more)

    monkeypatch.setattr("reader.history.catalogue_cache.build_catalogue", counted)
    auth.add("d-1", "press-1")
    await store.insert(make_reading(1), device="d-1")
    for _ in range(3):
        assert await labels(looking) == [("press-1", SENSOR)]
    assert made == 1
    auth.devices["user-1"][0]["name"] = "press-9"
    assert await labels(looking) == [("press-9", SENSOR)]
    await store.insert(make_reading(1), device="d-2")
    assert await labels(looking) == [("d-2", SENSOR), ("press-9", SENSOR)]
    assert made == 3


async def test_one_owners_list_does_not_keep_anothers_waiting(
    looking: ReaderClient, store: Store, queries: QueryCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner in ("greedy", "other"):
        await store.insert(make_reading(1), owner=owner)
    queries.held["greedy"] = asyncio.Event()
    waiting = [asyncio.ensure_future(search(looking, owner="greedy")) for _ in range(30)]

    async def making() -> bool:
        return "greedy" in queries.lists

    await eventually(making, "the first list is being made")
    async with asyncio.timeout(10):
        assert (await search(looking, owner="other"))["total"] == 1
    assert queries.lists.count("greedy") == 1
    queries.held["greedy"].set()
    assert {answer["total"] for answer in await asyncio.gather(*waiting)} == {1}


async def test_the_lists_of_all_owners_are_bounded_and_the_oldest_is_rebuilt(
    broker: EmbeddedBroker,
    mongodb_database: Mongo,
    store: Store,
    auth: AuthStub,
    queries: QueryCounter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue_cache, "MIN_TTL_S", 60.0)
    monkeypatch.setattr(catalogue_cache, "MAX_CACHED_SERIES", 2 * (100 + ENTRY_WEIGHT))
    owners = ["o-1", "o-2", "o-3"]
    for owner in owners:
        await store.insert_series(((f"d-{number}", "t") for number in range(100)), owner)
    async with open_reader(broker, mongodb_database, devices=auth.fetch) as reader_client:
        for owner in [*owners, "o-2", "o-3", "o-2", "o-1", "o-2"]:
            assert (await search(reader_client, owner=owner))["total"] == 100
        assert queries.lists == ["o-1", "o-2", "o-3", "o-1"]
        assert reader_client.count("catalogue_series") == 200


async def test_a_list_of_too_many_series_is_marked_as_truncated(
    keeping: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert_series((f"d-{number}", "t") for number in range(10))
    monkeypatch.setattr(catalogue_cache, "MAX_SERIES", 10)
    assert "truncated" not in await search(keeping)
    monkeypatch.setattr(catalogue_cache, "MAX_SERIES", 9)
    found = await search(keeping, owner="other")
    assert found["total"] == 0
    await store.insert_series(((f"d-{number}", "t") for number in range(10)), "third")
    found = await search(keeping, owner="third")
    assert (found["total"], found["truncated"]) == (9, True)


FAILURES: list[Callable[[], Exception]] = [
    lambda: OSError("away"),
    TimeoutError,
    lambda: aiohttp.ClientPayloadError("cut"),
    lambda: ValueError("a fault"),
]


@pytest.mark.parametrize("failure", FAILURES)
async def test_while_auth_is_away_ids_stand_for_names(
    looking: ReaderClient, store: Store, auth: AuthStub, failure: Callable[[], Exception]
) -> None:
    auth.add("d-9", "a")
    for device in ("d-9", "d-10"):
        await store.insert(make_reading(1), device=device)
    auth.failing = failure()
    assert await labels(looking) == [("d-9", SENSOR), ("d-10", SENSOR)]
    assert looking.count("names_missing_total") == 1
    auth.failing = None
    assert await labels(looking) == [("a", SENSOR), ("d-10", SENSOR)]
    auth.failing = failure()
    assert await labels(looking) == [("a", SENSOR), ("d-10", SENSOR)], "names that were known stay for a while"


async def test_nobody_waits_long_for_names_and_they_are_shown_once_they_have_come(
    looking: ReaderClient, store: Store, auth: AuthStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_cache, "NAMES_WAIT_S", 0.1)
    auth.add("d-9", "a")
    await store.insert(make_reading(1), device="d-9")
    auth.go.clear()
    started = time.monotonic()
    assert await labels(looking) == await labels(looking) == [("d-9", SENSOR)]
    assert time.monotonic() - started < 5
    assert len(auth.requests) == 1, "one question at a time"
    auth.go.set()

    async def named() -> bool:
        return await labels(looking) == [("a", SENSOR)]

    await eventually(named, "the name is shown")


async def test_names_that_are_refused_are_not_shown_from_memory(
    looking: ReaderClient, store: Store, auth: AuthStub
) -> None:
    auth.add("d-9", "a")
    await store.insert(make_reading(1), device="d-9")
    assert await labels(looking) == [("a", SENSOR)]
    request: Any = None
    auth.failing = aiohttp.ClientResponseError(request, (), status=403)
    assert await labels(looking) == [("d-9", SENSOR)]


@pytest.mark.parametrize("limited_first", [True, False])
async def test_a_token_that_is_limited_to_devices_shares_no_list_with_others_not_even_one_that_is_being_built(
    keeping: ReaderClient, store: Store, auth: AuthStub, limited_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_cache, "NAMES_WAIT_S", 60.0)
    auth.add("d-1", "press-1")
    auth.add("d-2", "secret-name", location="secret-place")
    await store.insert(make_reading(1), device="d-1")
    await store.insert(make_reading(2), device="d-2")
    tokens = [ISSUING.api_key(devices=["d-1"]), user_token()]
    asking = [
        asyncio.ensure_future(keeping.fetch("/series/search", token=token))
        for token in (tokens if limited_first else reversed(tokens))
    ]
    limited, whole = await asyncio.gather(*(asking if limited_first else reversed(asking)))
    for _ in range(2):
        assert ([item["name"] for item in limited.items], limited.json["total"]) == (["press-1"], 1)
        assert b"secret" not in limited.body
        assert [item["name"] for item in whole.items] == ["press-1", "secret-name"]
        limited, whole = [await keeping.fetch("/series/search", token=token) for token in tokens]
    assert len(auth.requests) == 2


async def test_each_owner_is_shown_what_is_that_owners(keeping: ReaderClient, store: Store, auth: AuthStub) -> None:
    for owner in ("alice", "bob"):
        auth.add("d-1", f"{owner}s-press", location=f"{owner}s hall", owner=owner)
        auth.add(f"{owner}s-id", f"{owner}s-quiet", owner=owner)
        await store.insert(make_reading(f"{owner}s value"), device="d-1", owner=owner)
    for owner, other in (("alice", "bob"), ("bob", "alice")) * 2:
        answer = await keeping.fetch("/series/search", token=user_token(owner, **MANAGE_SCOPE))
        assert answer.json["total"] == 2
        assert other.encode() not in answer.body
        assert (await search(keeping, other, owner=owner))["total"] == 0
    read = partial(jwt.decode, options={"verify_signature": False})
    tokens = {(owner, read(token)["owner"]) for owner, token, _ in auth.requests}
    assert tokens == {("alice", "alice"), ("bob", "bob")}


async def test_a_reader_that_stops_waits_for_no_names(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store, auth: AuthStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_cache, "NAMES_WAIT_S", 0.05)
    await store.insert(make_reading(1))
    auth.go.clear()
    async with asyncio.timeout(10), open_reader(broker, mongodb_database, devices=auth.fetch) as reader_client:
        assert (await search(reader_client))["total"] == 1


@asynccontextmanager
async def serving(answer: Callable[[web.Request], web.Response]) -> AsyncIterator[tuple[FromAuth, list[web.Request]]]:
    """An auth service with given responses."""
    requests: list[web.Request] = []

    async def devices(request: web.Request) -> web.Response:
        requests.append(request)
        return answer(request)

    app = web.Application()
    app.add_routes([web.get("/devices", devices)])
    async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        yield FromAuth(fetch_devices_over_http(session, f"http://127.0.0.1:{port}/")), requests


async def test_devices_are_fetched_with_the_callers_token_page_by_page() -> None:
    item = {"id": "d-1", "name": "n", "sensorType": "t", "location": {"lat": 1.5, "lon": 2}, "createdAt": "x", "new": 1}

    def answer(request: web.Request) -> web.Response:
        first = "cursor" not in request.query
        return web.json_response(
            {"items": [item | {"id": "d-1" if first else "d-2"}]} | ({"nextCursor": "d-1"} if first else {})
        )

    async with serving(answer) as (auth, requests):
        found = await auth.devices("o", None, "the-token")
        assert [(device.id, device.location) for device in found.devices] == [
            ("d-1", {"lat": 1.5, "lon": 2}),
            ("d-2", {"lat": 1.5, "lon": 2}),
        ]
        assert [dict(request.query) for request in requests] == [{"limit": "1000"}, {"limit": "1000", "cursor": "d-1"}]
        assert {request.headers["Authorization"] for request in requests} == {"Bearer the-token"}
        assert (await auth.devices("o", None, "the-token")).digest == found.digest


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (401, "{}", True),
        (403, "{}", True),
        (503, "{}", False),
        (404, "", False),
        (200, "<html>", False),
        (200, "[]", False),
    ],
)
async def test_an_answer_of_another_kind_leaves_the_devices_unknown(status: int, body: str, refused: bool) -> None:
    async with serving(lambda _: web.Response(status=status, text=body)) as (auth, _):
        with pytest.raises(DevicesUnavailable) as raised:
            await auth.devices("o", None, "t")
        assert raised.value.refused is refused
