"""What searches cost: lists are made once for all who ask, kept, and bounded; and what happens while auth is away."""

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
from reader.from_auth import DevicesUnknown, FromAuth, fetch_devices_over_http
from reader.history import catalogues
from reader.history.bounded import ENTRY, Bounded
from reader.history.catalogue import catalogue_of
from reader.history.from_mongodb import FromMongoDB
from runtime.http.listen import listen
from testing.waiting import eventually
from tests.reader.registered import MANAGES, Auth, labels, search
from tests.reader.running import SENSOR, Mongo, Running, Store, reader, sent, token_of


class Asked:
    """Counts questions to MongoDB, and lets some wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lists: list[str] = []
        self.newest: list[int] = []
        self.held: dict[str, asyncio.Event] = {}
        list_, newest = FromMongoDB.series_documents, FromMongoDB._newest_together

        async def listed(history: FromMongoDB, owner: str, most: int) -> list[bytes]:
            self.lists.append(owner)
            if owner in self.held:
                await self.held[owner].wait()
            return await list_(history, owner, most)

        async def asked(history: FromMongoDB, owner: str, series: Any, before_ms: int | None) -> Any:
            self.newest.append(len(series))
            return await newest(history, owner, series, before_ms)

        monkeypatch.setattr(FromMongoDB, "series_documents", listed)
        monkeypatch.setattr(FromMongoDB, "_newest_together", asked)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


@pytest.fixture
def auth() -> Auth:
    return Auth()


@pytest.fixture
async def keeping(
    broker: EmbeddedBroker, mongodb_database: Mongo, auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    """A reader that keeps its lists for as long as the test lasts."""
    monkeypatch.setattr(catalogues, "KEPT_S", 60.0)
    async with reader(broker, mongodb_database, devices=auth.fetch) as running:
        yield running


@pytest.fixture
async def looking(
    broker: EmbeddedBroker, mongodb_database: Mongo, auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    """A reader that makes its lists anew for each question."""
    monkeypatch.setattr(catalogues, "KEPT_S", 0.0)
    monkeypatch.setattr(catalogues, "KEPT_TIMES", 0)
    async with reader(broker, mongodb_database, devices=auth.fetch) as running:
        yield running


async def test_twenty_thousand_series_are_listed_once_and_a_page_is_one_question(
    keeping: Running, store: Store, auth: Auth, asked: Asked
) -> None:
    await store.knows((f"d-{number:05d}", "t") for number in range(20_000))
    for number in range(9):
        auth.has(f"d-{number:05d}", f"press-{number}")
    first = await search(keeping)
    assert (first["total"], first["devices"], len(first["items"])) == (20_000, 20_000, 50)
    assert (asked.lists, asked.newest, len(auth.asked)) == (["user-1"], [50], 3)
    for query in ({"offset": 19_990}, {"offset": 10_000}, {"text": "press"}, {"text": "nothing"}, {"limit": 200}):
        await search(keeping, **query)
    assert (asked.lists, len(auth.asked)) == (["user-1"], 3)
    assert asked.newest == [50, 10, 50, 9, 50, 50, 50, 50]
    assert keeping.count("catalogue_seconds_count") == 1
    assert keeping.count("catalogue_series") == 20_000


async def test_however_many_ask_at_once_a_list_is_made_once(
    keeping: Running, store: Store, auth: Auth, asked: Asked
) -> None:
    await store.holds(sent(1))
    answers = await asyncio.gather(*(search(keeping) for _ in range(20)))
    assert {answer["total"] for answer in answers} == {1}
    assert (len(asked.lists), len(auth.asked)) == (1, 1)


class Clock:
    """The time of the lists, which a test may put forward."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


async def test_a_list_that_is_old_is_shown_while_the_next_one_is_made_and_one_that_is_older_is_not(
    keeping: Running, store: Store, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("reader.history.catalogues.time", clock)
    await store.holds(sent(1))
    assert (await search(keeping))["total"] == 1
    await store.holds(sent(1), device="d-2")
    clock.ahead_s = 0.9 * catalogues.KEPT_S
    assert (await search(keeping))["total"] == 1
    assert len(asked.lists) == 1
    clock.ahead_s = 1.5 * catalogues.KEPT_S
    asked.held["user-1"] = asyncio.Event()
    for _ in range(2):
        assert (await search(keeping))["total"] == 1  # nobody waits for it
    asked.held["user-1"].set()

    async def seen() -> bool:
        return bool((await search(keeping))["total"] == 2)

    await eventually(seen, "what is new is seen")
    assert len(asked.lists) == 2
    await store.holds(sent(1), device="d-3")
    clock.ahead_s += 3 * catalogues.KEPT_S
    assert (await search(keeping))["total"] == 3


async def test_pages_keep_their_order_while_series_come(keeping: Running, store: Store) -> None:
    await store.knows((f"d-{number}", "t") for number in range(10))
    first = await labels(keeping, limit=5)
    await store.knows([("a", "t"), ("d-3a", "t")])
    assert first + await labels(keeping, offset=5, limit=50) == [(f"d-{number}", "t") for number in range(10)]


async def test_what_has_not_changed_is_not_sorted_again(
    looking: Running, store: Store, auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal made
        made += 1
        return catalogue_of(*arguments, **more)

    monkeypatch.setattr("reader.history.catalogues.catalogue_of", counted)
    auth.has("d-1", "press-1")
    await store.holds(sent(1), device="d-1")
    for _ in range(3):
        assert await labels(looking) == [("press-1", SENSOR)]
    assert made == 1
    auth.devices["user-1"][0]["name"] = "press-9"
    assert await labels(looking) == [("press-9", SENSOR)]
    await store.holds(sent(1), device="d-2")
    assert await labels(looking) == [("d-2", SENSOR), ("press-9", SENSOR)]
    assert made == 3


async def test_one_owners_list_does_not_keep_anothers_waiting(
    looking: Running, store: Store, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner in ("greedy", "other"):
        await store.holds(sent(1), owner=owner)
    asked.held["greedy"] = asyncio.Event()
    waiting = [asyncio.ensure_future(search(looking, owner="greedy")) for _ in range(30)]

    async def making() -> bool:
        return "greedy" in asked.lists

    await eventually(making, "the first list is being made")
    async with asyncio.timeout(10):
        assert (await search(looking, owner="other"))["total"] == 1
    assert asked.lists.count("greedy") == 1
    asked.held["greedy"].set()
    assert {answer["total"] for answer in await asyncio.gather(*waiting)} == {1}


async def test_the_lists_of_all_owners_are_bounded_and_the_oldest_is_made_anew(
    broker: EmbeddedBroker,
    mongodb_database: Mongo,
    store: Store,
    auth: Auth,
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogues, "KEPT_S", 60.0)
    monkeypatch.setattr(catalogues, "MAX_KEPT_SERIES", 2 * (100 + ENTRY))
    owners = ["o-1", "o-2", "o-3"]
    for owner in owners:
        await store.knows(((f"d-{number}", "t") for number in range(100)), owner)
    async with reader(broker, mongodb_database, devices=auth.fetch) as running:
        for owner in [*owners, "o-2", "o-3", "o-2", "o-1", "o-2"]:
            assert (await search(running, owner=owner))["total"] == 100
        assert asked.lists == ["o-1", "o-2", "o-3", "o-1"]
        assert running.count("catalogue_series") == 200


async def test_more_series_than_are_listed_are_told_of(
    keeping: Running, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.knows((f"d-{number}", "t") for number in range(10))
    monkeypatch.setattr(catalogues, "MAX_SERIES", 10)
    assert "truncated" not in await search(keeping)
    monkeypatch.setattr(catalogues, "MAX_SERIES", 9)
    found = await search(keeping, owner="other")
    assert found["total"] == 0
    await store.knows(((f"d-{number}", "t") for number in range(10)), "third")
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
    looking: Running, store: Store, auth: Auth, failure: Callable[[], Exception]
) -> None:
    auth.has("d-9", "a")
    for device in ("d-9", "d-10"):
        await store.holds(sent(1), device=device)
    auth.failing = failure()
    assert await labels(looking) == [("d-9", SENSOR), ("d-10", SENSOR)]
    assert looking.count("names_missing_total") == 1
    auth.failing = None
    assert await labels(looking) == [("a", SENSOR), ("d-10", SENSOR)]
    auth.failing = failure()
    assert await labels(looking) == [("a", SENSOR), ("d-10", SENSOR)], "names that were known stay for a while"


async def test_nobody_waits_long_for_names_and_they_are_shown_once_they_have_come(
    looking: Running, store: Store, auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogues, "NAMES_WAIT_S", 0.1)
    auth.has("d-9", "a")
    await store.holds(sent(1), device="d-9")
    auth.go.clear()
    started = time.monotonic()
    assert await labels(looking) == await labels(looking) == [("d-9", SENSOR)]
    assert time.monotonic() - started < 5
    assert len(auth.asked) == 1, "one question at a time"
    auth.go.set()

    async def named() -> bool:
        return await labels(looking) == [("a", SENSOR)]

    await eventually(named, "the name is shown")


async def test_names_that_are_refused_are_not_shown_from_memory(looking: Running, store: Store, auth: Auth) -> None:
    auth.has("d-9", "a")
    await store.holds(sent(1), device="d-9")
    assert await labels(looking) == [("a", SENSOR)]
    request: Any = None
    auth.failing = aiohttp.ClientResponseError(request, (), status=403)
    assert await labels(looking) == [("d-9", SENSOR)]


async def test_names_are_not_for_tokens_that_may_not_list_devices(keeping: Running, store: Store, auth: Auth) -> None:
    auth.has("d-1", "secret-name", location="secret-place")
    auth.has("d-2", "secret-too")
    await store.holds(sent(1), device="d-1")
    assert (await search(keeping))["total"] == 2
    asked = len(auth.asked)
    token = token_of(scope="readings:read")
    answer = await keeping.ask("/series/search", token=token)
    assert b"secret" not in answer.body
    assert (answer.json["total"], answer.json["devices"], answer.items[0]["registered"]) == (1, 1, False)
    assert (await keeping.ask("/series/search", {"text": "secret"}, token=token)).json["total"] == 0
    assert len(auth.asked) == asked
    assert (await search(keeping, "secret"))["total"] == 2


async def test_each_owner_is_shown_what_is_that_owners(keeping: Running, store: Store, auth: Auth) -> None:
    for owner in ("alice", "bob"):
        auth.has("d-1", f"{owner}s-press", location=f"{owner}s hall", owner=owner)
        auth.has(f"{owner}s-id", f"{owner}s-quiet", owner=owner)
        await store.holds(sent(f"{owner}s value"), device="d-1", owner=owner)
    for owner, other in (("alice", "bob"), ("bob", "alice")) * 2:
        answer = await keeping.ask("/series/search", token=token_of(owner, **MANAGES))
        assert answer.json["total"] == 2
        assert other.encode() not in answer.body
        assert (await search(keeping, other, owner=owner))["total"] == 0
    read = partial(jwt.decode, options={"verify_signature": False})
    tokens = {(owner, read(token)["owner"]) for owner, token, _ in auth.asked}
    assert tokens == {("alice", "alice"), ("bob", "bob")}


async def test_a_reader_that_stops_waits_for_no_names(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store, auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogues, "NAMES_WAIT_S", 0.05)
    await store.holds(sent(1))
    auth.go.clear()
    async with asyncio.timeout(10), reader(broker, mongodb_database, devices=auth.fetch) as running:
        assert (await search(running))["total"] == 1


@asynccontextmanager
async def serving(answer: Callable[[web.Request], web.Response]) -> AsyncIterator[tuple[FromAuth, list[web.Request]]]:
    """An auth service that answers as it is told."""
    requests: list[web.Request] = []

    async def devices(request: web.Request) -> web.Response:
        requests.append(request)
        return answer(request)

    app = web.Application()
    app.add_routes([web.get("/devices", devices)])
    async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        yield FromAuth(fetch_devices_over_http(session, f"http://127.0.0.1:{port}/")), requests


async def test_auth_is_asked_with_the_callers_token_page_by_page() -> None:
    item = {"id": "d-1", "name": "n", "sensorType": "t", "location": {"lat": 1.5, "lon": 2}, "createdAt": "x", "new": 1}

    def answer(request: web.Request) -> web.Response:
        first = "cursor" not in request.query
        return web.json_response(
            {"items": [item | {"id": "d-1" if first else "d-2"}]} | ({"nextCursor": "d-1"} if first else {})
        )

    async with serving(answer) as (auth, requests):
        found = await auth.devices("o", "the-token")
        assert [(device.id, device.location) for device in found.devices] == [
            ("d-1", {"lat": 1.5, "lon": 2}),
            ("d-2", {"lat": 1.5, "lon": 2}),
        ]
        assert [dict(request.query) for request in requests] == [{"limit": "1000"}, {"limit": "1000", "cursor": "d-1"}]
        assert {request.headers["Authorization"] for request in requests} == {"Bearer the-token"}
        assert (await auth.devices("o", "the-token")).digest == found.digest


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
        with pytest.raises(DevicesUnknown) as raised:
            await auth.devices("o", "t")
        assert raised.value.refused is refused


def test_what_is_kept_is_bounded_by_weight_and_what_was_asked_for_stays() -> None:
    kept: Bounded[str, int] = Bounded(100 + 3 * ENTRY)
    for key, weight in (("a", 50), ("b", 25), ("c", 25)):
        kept.keep(key, weight, weight)
    assert (len(kept), kept.held) == (3, 100)
    assert kept.get("a") == 50
    kept.keep("d", 25, 25)
    assert [kept.get(key) for key in "abcd"] == [50, None, 25, 25]
    kept.keep("a", 10, 10)
    assert (kept.get("a"), kept.held) == (10, 60)
    kept.keep("huge", 1000, 1000)
    assert (len(kept), kept.get("huge")) == (1, 1000)
    for number in range(100):
        kept.keep(str(number), 0, 0)
    assert len(kept) <= 13
