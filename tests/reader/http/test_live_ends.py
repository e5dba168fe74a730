"""How live feeds end: with their tokens, with their clients, with the process."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from access.revocations import POLL_EVERY_S
from access.tokens import KeySet
from broker.embedded.broker import EmbeddedBroker
from reader.history.from_mongodb import FromMongoDB
from reader.live.feed import CLOSE_TIMEOUT_S
from runtime.times import now_ms
from testing.issuer import Issuer
from testing.waiting import eventually
from tests.reader.harness import (
    ISSUING,
    TS,
    FakeRevocations,
    Mongo,
    ReaderClient,
    Store,
    make_reading,
    open_reader,
    user_token,
)
from tests.reader.live_client import Persister, client_that_never_reads, endless_broadcast, live_client

# How long the end of a token may take to reach an open feed.
WITHIN_S = 5.0


def test_what_may_pass_until_a_revoked_feed_has_ended_is_within_the_promise() -> None:
    assert POLL_EVERY_S + CLOSE_TIMEOUT_S < WITHIN_S


def in_s(seconds: float) -> int:
    """An `exp` between `seconds` and `seconds` + 1 from now."""
    return int(time.time() + seconds) + 1


async def ended(reader_client: ReaderClient, why: str) -> None:
    async def counted() -> bool:
        return reader_client.count("live_ended_total", why=why) == 1

    await eventually(counted, f"a feed has ended: {why}")


async def test_a_feed_ends_with_its_token_and_says_so_and_others_go_on(
    reader_client: ReaderClient, broker: EmbeddedBroker
) -> None:
    expires_at = in_s(1)
    async with (
        live_client(reader_client, token=user_token(exp=expires_at)) as feed,
        live_client(reader_client) as stays,
    ):
        await feed.ends(expires_at - time.time() + WITHIN_S)
        assert time.time() >= expires_at
        assert (feed.names, feed.ended) == (["expired"], "end")
        assert feed.events[0].data == {}
        await ended(reader_client, "expired")
        await Persister(broker).broadcast(make_reading(1))
        await stays.receives(1)


async def test_a_feed_whose_token_expired_while_the_clock_leapt_ends_at_once_and_others_go_on(
    reader_client: ReaderClient, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = user_token(exp=in_s(7300))
    async with (
        live_client(reader_client, token=user_token(exp=in_s(3600))) as feed,
        live_client(reader_client, token=later) as stays,
    ):
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 3601.5)
        await feed.ends(WITHIN_S)
        assert (feed.names, feed.ended) == (["expired"], "end")
        assert stays.ended == ""
        await Persister(broker).broadcast(make_reading(1))
        await stays.receives(1)


async def test_a_token_that_has_expired_opens_no_feed(reader_client: ReaderClient) -> None:
    answer = await reader_client.fetch("/live", token=user_token(iat=in_s(-60), exp=in_s(-2)))
    assert (answer.status, answer.json["code"]) == (401, "expired")


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        ("jti", "jti-1", {}),
        ("sid", "family-1", {}),
        ("user", "user-1", {}),
        ("user", "user-1", {"gen": 1}),
        ("kid", ISSUING.kid, {}),
    ],
)
async def test_a_feed_whose_token_is_revoked_says_so_and_ends_and_others_go_on(
    broker: EmbeddedBroker, mongodb_database: Mongo, kind: str, name: str, more: dict[str, Any]
) -> None:
    listing, newer = FakeRevocations(), Issuer("key-2")
    other = newer.user(sub="user-2", owner="user-2", jti="jti-2", sid="family-2")

    async def jwks() -> dict[str, Any]:
        return {"keys": [ISSUING.jwk(), newer.jwk()]}

    async with (
        open_reader(broker, mongodb_database, revocations=listing.polling(), keys=KeySet(jwks)) as reader_client,
        live_client(reader_client) as feed,
        live_client(reader_client, token=other) as stays,
    ):
        listing.revoke(kind, name, **more)
        await feed.ends(WITHIN_S)
        assert (feed.names, feed.ended) == (["revoked"], "end")
        await ended(reader_client, "revoked")
        again = await reader_client.fetch("/live")
        assert (again.status, again.json["code"]) == (401, "revoked")
        await Persister(broker).broadcast(make_reading(1), owner="user-2")
        await stays.receives(1)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush feeds more often, so that sockets fill sooner, and end them sooner."""
    monkeypatch.setattr("reader.live.feed.CLOSE_TIMEOUT_S", 0.4)
    monkeypatch.setattr("reader.live.from_live.FLUSH_EVERY_S", 0.02)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("how", ["expired", "revoked"])
async def test_a_feed_that_nobody_reads_ends_with_its_token_too(
    broker: EmbeddedBroker, mongodb_database: Mongo, how: str
) -> None:
    listing = FakeRevocations()
    expires_at = in_s(1) if how == "expired" else in_s(600)
    async with (
        open_reader(
            broker, mongodb_database, revocations=listing.polling(), unread_timeout_seconds=60
        ) as reader_client,
        client_that_never_reads(reader_client, user_token(exp=expires_at)),
        endless_broadcast(broker),
    ):

        async def blocked() -> bool:
            return reader_client.count("live_skipped_total") > 0

        async def gone() -> bool:
            return reader_client.count("live_feeds") == 0

        await eventually(blocked, "more comes than is read")
        if how == "revoked":
            listing.revoke("jti", "jti-1")
        await eventually(gone, "the feed has ended", (expires_at - time.time() if how == "expired" else 0) + WITHIN_S)
        assert reader_client.count("live_ended_total", why=how) == 1


async def test_a_feed_that_still_fills_its_gap_ends_with_its_token_too(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        await store.insert(make_reading(number, received_ms=now_ms()), device=f"d-{number:02}")
    fetch = FromMongoDB.page

    async def slow(self: FromMongoDB, *arguments: Any) -> Any:
        await asyncio.sleep(0.2)
        return await fetch(self, *arguments)

    monkeypatch.setattr(FromMongoDB, "page", slow)
    listing = FakeRevocations()
    async with open_reader(broker, mongodb_database, revocations=listing.polling()) as reader_client:
        opening = live_client(reader_client, after=f"{now_ms() - 60_000}-{TS}-0")
        async with opening as feed:
            await feed.until(lambda self: len(self.values) > 2, "the gap is being filled")
            listing.revoke("jti", "jti-1")
            await feed.until(lambda self: "revoked" in self.names, "the event is received", WITHIN_S)
            await feed.ends(1)
            assert len(feed.values) < 40


async def test_a_client_that_leaves_is_noticed_by_the_next_heartbeat(
    broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    async with open_reader(broker, mongodb_database, heartbeat_seconds=0.1) as reader_client:
        async with live_client(reader_client):
            assert reader_client.count("live_feeds") == 1
        await ended(reader_client, "gone")
        assert reader_client.count("live_feeds") == 0


async def test_a_reader_that_stops_ends_its_feeds_at_once_and_in_order(
    broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    async with aiohttp.ClientSession() as browser, AsyncExitStack() as feeds:
        async with open_reader(broker, mongodb_database) as reader_client:
            reader_client.http, own = browser, reader_client.http
            feed = [await feeds.enter_async_context(live_client(reader_client)) for _ in range(3)]
            reader_client.http = own
            started = time.monotonic()
        assert time.monotonic() - started < 2
        assert reader_client.count("live_ended_total", why="stopping") == 3
        for one in feed:
            await one.ends(1)
            assert (one.names, one.ended) == ([], "end")
