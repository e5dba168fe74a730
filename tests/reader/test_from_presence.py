"""Presence events in `GET /series` and `GET /pipeline`: connected devices, last-seen times, rates."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.interface import Broadcaster
from broker.presence import SILENT_AFTER_S, Alive, Connected, Disconnected, Event, OpenSession, SessionKey, encode_event
from broker.topology import LIVE_EXCHANGE, PRESENCE_EXCHANGE
from reader.live.from_live import LAG_VALID_S
from readings.document import encode_document
from runtime.times import now_ms, rfc3339
from testing.waiting import eventually
from tests.reader.harness import DEVICE, OWNER, TS, ReaderClient, Store, make_reading, user_token

FIRST, SECOND = SessionKey(1_000_000, "g1"), SessionKey(2_000_000, "g2")


class Clock:
    """A clock in seconds that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("reader.from_presence.time", SimpleNamespace(monotonic=made.monotonic))
    return made


class Gateways:
    """Broadcasts as gateways do, and checks what the reader shows."""

    def __init__(self, broadcaster: Broadcaster, reader_client: ReaderClient) -> None:
        self._broadcaster = broadcaster
        self._running = reader_client

    def say(self, *events: Event) -> None:
        for event in events:
            self._broadcaster.broadcast(encode_event(event))

    async def shown(self, owner: str = OWNER) -> dict[str, Any]:
        (found,) = (await self._running.fetch("/series", token=user_token(owner))).items
        return dict(found)

    async def shows(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        async def insert() -> bool:
            return condition(await self.shown())

        await eventually(insert, what)

    async def rate(self, owner: str = OWNER) -> float:
        return float((await self._running.fetch("/pipeline", token=user_token(owner))).json["readingsPerSecond"])

    async def rates(self, rate: float) -> None:
        async def insert() -> bool:
            return await self.rate() == rate

        await eventually(insert, f"{rate} readings a second")


@pytest.fixture
async def gateways(
    clock: Clock, reader_client: ReaderClient, store: Store, broker: EmbeddedBroker
) -> AsyncIterator[Gateways]:
    """A reader with one reading, received at TS + 250 ms, and one of another owner's device of the same name."""
    del clock
    await store.insert(make_reading(1))
    await store.insert(make_reading(1), owner="other")
    async with broker.broadcaster(PRESENCE_EXCHANGE) as broadcaster:
        yield Gateways(broadcaster, reader_client)


def connected(session: SessionKey = FIRST, at: int = TS, owner: str = OWNER) -> Connected:
    return Connected(owner, DEVICE, session, at)


def disconnected(session: SessionKey = FIRST, at: int = TS, owner: str = OWNER) -> Disconnected:
    return Disconnected(owner, DEVICE, session, at)


def alive(session: SessionKey = FIRST, at: int = TS, **accepted: int) -> Alive:
    sessions = [OpenSession(OWNER, DEVICE, session.connected_us)]
    return Alive(session.gateway, at, sessions, list(accepted.items()))


def is_connected(item: dict[str, Any]) -> bool:
    return bool(item["connected"])


def is_gone(item: dict[str, Any]) -> bool:
    return not item["connected"]


async def test_a_connected_device_is_seen_now_and_a_disconnected_one_was_when_it_left(gateways: Gateways) -> None:
    assert await gateways.shown() | {"connected": False, "lastSeenAt": rfc3339(TS + 250)} == await gateways.shown()
    gateways.say(connected(at=TS + 1000))
    await gateways.shows("the device is connected", is_connected)
    seen = datetime.fromisoformat((await gateways.shown())["lastSeenAt"])
    assert abs(seen.timestamp() * 1000 - now_ms()) < 2000
    assert is_gone(await gateways.shown("other"))
    gateways.say(disconnected(at=TS + 5000))
    await gateways.shows("the device has left", is_gone)
    assert (await gateways.shown())["lastSeenAt"] == rfc3339(TS + 5000)
    assert (await gateways.shown("other"))["lastSeenAt"] == rfc3339(TS + 250)


async def test_a_device_was_seen_when_its_last_reading_came_in_if_that_is_later(gateways: Gateways) -> None:
    gateways.say(connected(at=TS - 9000))
    await gateways.shows("the device is connected", is_connected)
    gateways.say(disconnected(at=TS + 249))
    await gateways.shows("the device has left", is_gone)
    assert (await gateways.shown())["lastSeenAt"] == rfc3339(TS + 250)


async def test_a_late_disconnect_does_not_end_a_newer_session(gateways: Gateways) -> None:
    gateways.say(connected(FIRST), connected(SECOND), disconnected(FIRST, TS + 1000))
    gateways.say(Alive("g3", TS, [], [(OWNER, 5)]))
    await gateways.rates(1.0)  # by now all of it was received
    assert is_connected(await gateways.shown())
    gateways.say(disconnected(SECOND, TS + 2000))
    await gateways.shows("the device has left", is_gone)


async def test_15_s_of_silence_end_a_gateways_devices_and_its_voice_brings_them_back(
    gateways: Gateways, clock: Clock
) -> None:
    gateways.say(connected())
    await gateways.shows("the device is connected", is_connected)
    clock.now += SILENT_AFTER_S - 0.1
    assert is_connected(await gateways.shown())
    clock.now += 0.1
    assert is_gone(await gateways.shown())
    gateways.say(Alive("g1", TS))
    await gateways.shows("the gateway is received again", is_connected)


async def test_one_who_listens_late_learns_from_the_gateways_voice_and_keeps_when_that_was(
    gateways: Gateways, clock: Clock
) -> None:
    gateways.say(alive(at=TS + 60_000))
    await gateways.shows("the device is connected", is_connected)
    clock.now += SILENT_AFTER_S
    assert is_gone(await gateways.shown())
    assert (await gateways.shown())["lastSeenAt"] == rfc3339(TS + 60_000)


async def test_an_invalid_event_is_ignored(gateways: Gateways) -> None:
    for payload in (b"", b"{}", b"\xff", b'{"type":"exploded"}', b"[" * 10_000):
        gateways._broadcaster.broadcast(payload)
    gateways.say(connected())
    await gateways.shows("the device is connected", is_connected)


async def test_the_rate_is_what_all_gateways_have_accepted_in_their_last_5_s(gateways: Gateways, clock: Clock) -> None:
    assert await gateways.rate() == 0
    gateways.say(alive(FIRST, **{OWNER: 500, "other": 7}))
    await gateways.rates(100.0)
    gateways.say(alive(SECOND, **{OWNER: 251}))
    await gateways.rates(150.2)
    assert await gateways.rate("other") == 1.4
    assert await gateways.rate("nobody") == 0
    gateways.say(alive(FIRST, at=TS + 5000, **{OWNER: 50}))  # instead of the 500
    await gateways.rates(60.2)
    gateways.say(Alive("g1", TS + 5000, [], [("other", 5), ("third", 10)]))  # what did not fit into the first
    clock.now += 10

    async def continued() -> bool:
        return await gateways.rate("third") == 2

    await eventually(continued, "the second part is counted")
    assert (await gateways.rate(), await gateways.rate("other")) == (60.2, 1.0)
    gateways.say(alive(SECOND, at=TS + 5000))  # nothing since
    await gateways.rates(10.0)
    clock.now += 5.1  # what g1 said first is 15 s old
    assert await gateways.rate() == 0


async def test_the_lag_is_from_a_gateways_receipt_to_the_feed_and_null_when_nothing_flows(
    reader_client: ReaderClient, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [TS]
    monkeypatch.setattr("reader.live.from_live.now_ms", lambda: now[0])

    async def lag(owner: str = OWNER) -> float | None:
        found: float | None = (await reader_client.fetch("/pipeline", token=user_token(owner))).json["lagSeconds"]
        return found

    async def lags(expected: float) -> None:
        async def insert() -> bool:
            return await lag() == expected

        await eventually(insert, f"the lag is {expected}")

    assert await lag() is None
    async with broker.broadcaster(LIVE_EXCHANGE) as broadcaster:
        broadcaster.broadcast(encode_document(OWNER, DEVICE, make_reading(1, TS - 99_999, received_ms=TS - 1500)))
        await lags(1.5)
        assert await lag("other") is None
        broadcaster.broadcast(
            encode_document(OWNER, DEVICE, make_reading(2, TS, received_ms=TS + 20))
        )  # by a clock ahead
        await lags(0.0)
        now[0] += round(LAG_VALID_S * 1000)
        assert await lag() == 0
        now[0] += 1
        assert await lag() is None
