"""How much is answered at once: of one owner and of everybody, live feeds and questions each by themselves."""

import asyncio
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from reader.history.from_mongodb import FromMongoDB
from testing.waiting import eventually
from tests.reader.following import following
from tests.reader.running import DEVICE, SENSOR, Mongo, Running, Store, reader, sent, series, token_of


async def left(running: Running, count: int) -> None:
    """Wait until so many feeds are known to be left."""

    async def counted() -> bool:
        return running.count("live_ended_total", why="gone") == count

    await eventually(counted, f"{count} feeds are left")


@pytest.mark.parametrize(
    ("limit", "status", "code", "scope"),
    [("max_live_per_owner", 429, "rate_limited", "owner"), ("max_live", 503, "busy", "everybody")],
)
async def test_so_many_feeds_and_no_more(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store, limit: str, status: int, code: str, scope: str
) -> None:
    await store.holds(sent(1))
    chosen: dict[str, Any] = {"heartbeat_seconds": 0.1, limit: 2}
    async with reader(broker, mongodb_database, **chosen) as running:
        async with following(running), following(running, series(DEVICE, SENSOR)):
            refused = await running.ask("/live")
            assert (refused.status, refused.kind) == (status, "application/problem+json")
            told = {"code": code, "scope": scope, "limit": 2, "retryAfterMs": 1000}
            assert told.items() <= refused.json.items()
            assert refused.headers["Retry-After"] == "1"
            assert running.count("busy_total", scope=scope) == 1
            other = await running.ask("/live", token=token_of("other"), method="HEAD")
            assert other.status == 200
            assert (await running.readings()).status == 200  # questions have a gate of their own
            if limit == "max_live_per_owner":
                async with following(running, token=token_of("other")):
                    pass
            else:
                assert (await running.ask("/live", token=token_of("other"))).status == 503
        await left(running, 3 if limit == "max_live_per_owner" else 2)
        async with following(running):
            pass


@pytest.mark.parametrize(
    ("limit", "status", "code", "scope"),
    [("max_{}_per_owner", 429, "rate_limited", "owner"), ("max_{}", 503, "busy", "everybody")],
)
@pytest.mark.parametrize("what", ["queries", "exports"])
async def test_so_many_questions_at_once_and_no_more(
    broker: EmbeddedBroker,
    mongodb_database: Mongo,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    limit: str,
    status: int,
    code: str,
    scope: str,
) -> None:
    for owner in ("user-1", "other"):
        await store.holds(sent(1), owner=owner)
    ask, go, inside = FromMongoDB.page, asyncio.Event(), 0

    async def held(self: FromMongoDB, *arguments: Any) -> Any:
        nonlocal inside
        inside += 1
        await go.wait()
        return await ask(self, *arguments)

    monkeypatch.setattr(FromMongoDB, "page", held)
    monkeypatch.setattr("reader.app.QUESTION_WAITS_S", 0.1)
    chosen: dict[str, Any] = {limit.format(what): 2}
    exporting = ("/readings", series(format="csv"))
    asked = [("/series", {}), ("/readings", series()), ("/readings/buckets", series())]
    asked, others = (asked, [exporting]) if what == "queries" else ([exporting], asked)
    async with reader(broker, mongodb_database, **chosen) as running:
        answers = [asyncio.ensure_future(running.ask(*asked[-1])) for _ in range(2)]

        async def full() -> bool:
            return inside == 2

        await eventually(full, "both are being answered")
        for path, query in asked:
            refused = await running.ask(path, query)
            assert refused.status == status
            told = {"code": code, "scope": scope, "limit": 2, "retryAfterMs": 1000}
            assert told.items() <= refused.json.items()
            assert refused.headers["Retry-After"] == "1"
        if scope == "everybody":
            assert (await running.ask(*asked[0], token=token_of("other"))).status == 503
        else:
            answers.append(asyncio.ensure_future(running.ask(*asked[0], token=token_of("other"))))
        answers.append(asyncio.ensure_future(running.ask(*others[0])))  # exports and questions have gates of their own
        await asyncio.sleep(0.15)
        go.set()
        assert {(await answer).status for answer in answers} == {200}
        assert (await running.readings()).status == 200
