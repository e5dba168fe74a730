"""Limits on concurrent requests, per owner and in total, separately for live feeds, queries and exports."""

import asyncio
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from storage.places.reading import Places
from testing.waiting import eventually
from tests.reader.harness import (
    DEVICE,
    SENSOR,
    Mongo,
    ReaderClient,
    Store,
    make_reading,
    open_reader,
    series,
    user_token,
)
from tests.reader.live_client import live_client


async def left(reader_client: ReaderClient, count: int) -> None:
    """Wait until `count` feeds have ended because their clients left."""

    async def counted() -> bool:
        return reader_client.count("live_ended_total", why="gone") == count

    await eventually(counted, f"{count} feeds are left")


@pytest.mark.parametrize(
    ("limit", "status", "code", "scope"),
    [("max_live_per_owner", 429, "rate_limited", "owner"), ("max_live", 503, "busy", "everybody")],
)
async def test_so_many_feeds_and_no_more(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store, limit: str, status: int, code: str, scope: str
) -> None:
    await store.insert(make_reading(1))
    chosen: dict[str, Any] = {"heartbeat_seconds": 0.1, limit: 2}
    async with open_reader(broker, mongodb_database, **chosen) as reader_client:
        async with live_client(reader_client), live_client(reader_client, series(DEVICE, SENSOR)):
            refused = await reader_client.fetch("/live")
            assert (refused.status, refused.kind) == (status, "application/problem+json")
            expected = {"code": code, "scope": scope, "limit": 2, "retryAfterMs": 1000}
            assert expected.items() <= refused.json.items()
            assert refused.headers["Retry-After"] == "1"
            assert reader_client.count("busy_total", scope=scope) == 1
            other = await reader_client.fetch("/live", token=user_token("other"), method="HEAD")
            assert other.status == 200
            assert (await reader_client.readings()).status == 200  # questions have a gate of their own
            if limit == "max_live_per_owner":
                async with live_client(reader_client, token=user_token("other")):
                    pass
            else:
                assert (await reader_client.fetch("/live", token=user_token("other"))).status == 503
        await left(reader_client, 3 if limit == "max_live_per_owner" else 2)
        async with live_client(reader_client):
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
        await store.insert(make_reading(1), owner=owner)
    fetch, go, inside = Places.ask, asyncio.Event(), 0

    async def held(self: Places, *arguments: Any) -> Any:
        nonlocal inside
        inside += 1
        await go.wait()
        return await fetch(self, *arguments)

    monkeypatch.setattr(Places, "ask", held)
    monkeypatch.setattr("reader.app.QUERY_WAIT_S", 0.1)
    chosen: dict[str, Any] = {limit.format(what): 2}
    exporting = ("/readings", series(format="csv"))
    calls = [("/series", {}), ("/readings", series()), ("/readings/buckets", series())]
    calls, others = (calls, [exporting]) if what == "queries" else ([exporting], calls)
    async with open_reader(broker, mongodb_database, **chosen) as reader_client:
        answers = [asyncio.ensure_future(reader_client.fetch(*calls[-1])) for _ in range(2)]

        async def full() -> bool:
            return inside == 2

        await eventually(full, "both are being answered")
        for path, query in calls:
            refused = await reader_client.fetch(path, query)
            assert refused.status == status
            expected = {"code": code, "scope": scope, "limit": 2, "retryAfterMs": 1000}
            assert expected.items() <= refused.json.items()
            assert refused.headers["Retry-After"] == "1"
        if scope == "everybody":
            assert (await reader_client.fetch(*calls[0], token=user_token("other"))).status == 503
        else:
            answers.append(asyncio.ensure_future(reader_client.fetch(*calls[0], token=user_token("other"))))
        answers.append(
            asyncio.ensure_future(reader_client.fetch(*others[0]))
        )  # exports and questions have gates of their own
        await asyncio.sleep(0.15)
        go.set()
        assert {(await answer).status for answer in answers} == {200}
        assert (await reader_client.readings()).status == 200
