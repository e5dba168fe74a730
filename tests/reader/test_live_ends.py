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
from reader.live.feed import ENDING_S
from runtime.times import now_ms
from testing.issuer import Issuer
from testing.waiting import eventually
from tests.reader.following import Persister, deaf, following, talking_without_end
from tests.reader.running import ISSUING, TS, Listing, Mongo, Running, Store, reader, sent, token_of

# What a token's end may take to reach a feed that is open (DESIGN's I6).
WITHIN_S = 5.0


def test_what_may_pass_until_a_revoked_feed_has_ended_is_within_the_promise() -> None:
    assert POLL_EVERY_S + ENDING_S < WITHIN_S


def in_s(seconds: float) -> int:
    """An `exp` that is between `seconds` and one more from now."""
    return int(time.time() + seconds) + 1


async def ended(running: Running, why: str) -> None:
    async def counted() -> bool:
        return running.count("live_ended_total", why=why) == 1

    await eventually(counted, f"a feed has ended: {why}")


async def test_a_feed_ends_with_its_token_and_says_so_and_others_go_on(
    running: Running, broker: EmbeddedBroker
) -> None:
    expires_at = in_s(1)
    async with following(running, token=token_of(exp=expires_at)) as follows, following(running) as stays:
        await follows.ends(expires_at - time.time() + WITHIN_S)
        assert time.time() >= expires_at
        assert (follows.names, follows.ended) == (["expired"], "end")
        assert follows.events[0].data == {}
        await ended(running, "expired")
        await Persister(broker).tells(sent(1))
        await stays.hears(1)


async def test_a_feed_whose_token_expired_while_the_clock_leapt_ends_at_once_and_others_go_on(
    running: Running, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = token_of(exp=in_s(7300))
    async with following(running, token=token_of(exp=in_s(3600))) as follows, following(running, token=later) as stays:
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 3601.5)
        await follows.ends(WITHIN_S)
        assert (follows.names, follows.ended) == (["expired"], "end")
        assert stays.ended == ""
        await Persister(broker).tells(sent(1))
        await stays.hears(1)


async def test_a_token_that_has_expired_opens_no_feed(running: Running) -> None:
    answer = await running.ask("/live", token=token_of(iat=in_s(-60), exp=in_s(-2)))
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
    listing, newer = Listing(), Issuer("key-2")
    other = newer.user(sub="user-2", owner="user-2", jti="jti-2", sid="family-2")

    async def jwks() -> dict[str, Any]:
        return {"keys": [ISSUING.jwk(), newer.jwk()]}

    async with (
        reader(broker, mongodb_database, revocations=listing.polled(), keys=KeySet(jwks)) as running,
        following(running) as follows,
        following(running, token=other) as stays,
    ):
        listing.revoke(kind, name, **more)
        await follows.ends(WITHIN_S)
        assert (follows.names, follows.ended) == (["revoked"], "end")
        await ended(running, "revoked")
        again = await running.ask("/live")
        assert (again.status, again.json["code"]) == (401, "revoked")
        await Persister(broker).tells(sent(1), owner="user-2")
        await stays.hears(1)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeds are served more often, so that sockets fill sooner, and ended sooner."""
    monkeypatch.setattr("reader.live.feed.ENDING_S", 0.4)
    monkeypatch.setattr("reader.live.from_live.EVERY_S", 0.02)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("how", ["expired", "revoked"])
async def test_a_feed_that_nobody_reads_ends_with_its_token_too(
    broker: EmbeddedBroker, mongodb_database: Mongo, how: str
) -> None:
    listing = Listing()
    expires_at = in_s(1) if how == "expired" else in_s(600)
    async with (
        reader(broker, mongodb_database, revocations=listing.polled(), unread_timeout_seconds=60) as running,
        deaf(running, token_of(exp=expires_at)),
        talking_without_end(broker),
    ):

        async def blocked() -> bool:
            return running.count("live_skipped_total") > 0

        async def gone() -> bool:
            return running.count("live_feeds") == 0

        await eventually(blocked, "more comes than is read")
        if how == "revoked":
            listing.revoke("jti", "jti-1")
        await eventually(gone, "the feed has ended", (expires_at - time.time() if how == "expired" else 0) + WITHIN_S)
        assert running.count("live_ended_total", why=how) == 1


async def test_a_feed_that_still_fills_its_gap_ends_with_its_token_too(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        await store.holds(sent(number, received_ms=now_ms()), device=f"d-{number:02}")
    ask = FromMongoDB.page

    async def slow(self: FromMongoDB, *arguments: Any) -> Any:
        await asyncio.sleep(0.2)
        return await ask(self, *arguments)

    monkeypatch.setattr(FromMongoDB, "page", slow)
    listing = Listing()
    async with reader(broker, mongodb_database, revocations=listing.polled()) as running:
        opening = following(running, after=f"{now_ms() - 60_000}-{TS}-0")
        async with opening as follows:
            await follows.until(lambda self: len(self.values) > 2, "the gap is being filled")
            listing.revoke("jti", "jti-1")
            await follows.until(lambda self: "revoked" in self.names, "it is told", WITHIN_S)
            await follows.ends(1)
            assert len(follows.values) < 40


async def test_a_client_that_leaves_is_noticed_by_the_next_heartbeat(
    broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    async with reader(broker, mongodb_database, heartbeat_seconds=0.1) as running:
        async with following(running):
            assert running.count("live_feeds") == 1
        await ended(running, "gone")
        assert running.count("live_feeds") == 0


async def test_a_reader_that_stops_ends_its_feeds_at_once_and_in_order(
    broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    async with aiohttp.ClientSession() as browser, AsyncExitStack() as feeds:
        async with reader(broker, mongodb_database) as running:
            running.http, own = browser, running.http
            follows = [await feeds.enter_async_context(following(running)) for _ in range(3)]
            running.http = own
            started = time.monotonic()
        assert time.monotonic() - started < 2
        assert running.count("live_ended_total", why="stopping") == 3
        for one in follows:
            await one.ends(1)
            assert (one.names, one.ended) == ([], "end")
