"""An API key that is limited to devices: no call shows it anything of another, of its owner's or of another owner's."""

import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from access.revocations import RevocationList
from broker.embedded.broker import EmbeddedBroker
from broker.presence import Connected, SessionKey, encode_event
from broker.topology import PRESENCE_EXCHANGE
from reader.history.from_mongodb import FromMongoDB
from runtime.times import now_ms
from testing.waiting import eventually
from tests.reader.auth_stub import AuthStub, search
from tests.reader.harness import (
    ISSUING,
    OWNER,
    FakeRevocations,
    Mongo,
    ReaderClient,
    Store,
    make_reading,
    open_reader,
    series,
)
from tests.reader.live_client import Persister, live_client

MINE, TOO, OTHER, BOB = "mine", "mine-too", "another", "user-2"
SENSORS = ("humidity", "temperature")
MARK = b"hidden"
EXPORTS = ("csv", "ndjson", "parquet")


def key() -> str:
    """Return a key that is limited to some devices. Not made on import: it would be an hour old."""
    token: str = ISSUING.api_key(devices=[MINE, TOO, "silent"])
    return token


@pytest.fixture
def revocations() -> FakeRevocations:
    return FakeRevocations()


@pytest.fixture
async def auth() -> AuthStub:
    stub = AuthStub()
    for device in (MINE, TOO, "silent", OTHER, "hidden"):
        stub.add(device, "hidden" if device == OTHER else device, location="hidden" if device == OTHER else "hall 3")
    return stub


@pytest.fixture
async def filled(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store, auth: AuthStub, revocations: FakeRevocations
) -> AsyncIterator[ReaderClient]:
    """A reader of an owner with three devices that have sent, one of which no key of these tests is for."""
    now = now_ms()
    for device, sensor, number in itertools.product((MINE, TOO, OTHER), SENSORS, range(3)):
        value = "hidden" if device == OTHER else number
        await store.insert(make_reading(value, now - 1000 + number, number, sensor=sensor), device=device)
    await store.insert(make_reading("hidden", now, sensor="humidity"), device=MINE, owner=BOB)
    listed: RevocationList = revocations.polling()
    async with (
        open_reader(broker, mongodb_database, devices=auth.fetch, revocations=listed) as found,
        broker.broadcaster(PRESENCE_EXCHANGE) as broadcaster,
    ):
        broadcaster.broadcast(encode_event(Connected(OWNER, OTHER, SessionKey(1, "g"), now)))
        yield found


def devices_in(items: list[dict[str, Any]]) -> set[str]:
    return {item["device"] for item in items}


async def test_what_names_no_device_is_limited_to_those_of_the_key(filled: ReaderClient) -> None:
    for query in ({}, {"sensorType": "humidity"}, {"completeness": "true"}, {"limit": "1"}, {"limit": "2"}):
        whole = (await filled.fetch("/series", query | {"limit": "100"})).items
        assert devices_in(whole) == {MINE, TOO, OTHER}, "the owner's own session"
        shown: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await filled.fetch("/series", query | cursor, token=key())
            shown += answer.items
            if "nextCursor" not in answer.json:
                break
            cursor = {"cursor": answer.json["nextCursor"]}
        mine = [item for item in whole if item["device"] in (MINE, TOO)]
        assert [(one["device"], one["sensorType"]) for one in shown] == [
            (one["device"], one["sensorType"]) for one in mine
        ]
        newest = await filled.fetch("/readings/latest", query, token=key())
        assert devices_in(newest.items) <= {MINE, TOO}
        assert MARK not in newest.body
    for format_ in EXPORTS:
        exported: list[bytes] = []
        for token in (None, key()):
            answer = await filled.fetch("/readings", {"format": format_}, token=token)
            assert answer.status == 200
            exported.append(answer.body)
        assert MARK in exported[0]
        assert MARK not in exported[1]
    ndjson = (await filled.fetch("/readings", {"format": "ndjson", "sensorType": list(SENSORS)}, token=key())).body
    assert ndjson.count(b"\n") == 12, "and a device that is silent is no error"
    one = ISSUING.api_key(devices=["silent"])
    for query in ({"format": "csv"}, {"format": "csv", "sensorType": "humidity"}):
        answer = await filled.fetch("/readings", query, token=one)
        assert (answer.status, answer.body.count(b"\n")) == (200, 1)
    figures = await filled.fetch("/pipeline", token=key())
    assert (figures.status, figures.json["code"]) == (403, "forbidden")


async def test_a_search_finds_the_devices_of_the_key_and_no_other_whoever_asks_at_the_same_time(
    filled: ReaderClient, auth: AuthStub
) -> None:
    async def found(token: str | None, text: str = "") -> Any:
        answer = await filled.fetch("/series/search", {"text": text}, token=token)
        assert answer.status == 200
        return answer

    limited = [await found(key()), await found(ISSUING.api_key(devices=[MINE])), await found(None), await found(key())]
    assert [devices_in(answer.items) for answer in limited] == [
        {MINE, TOO, "silent"},
        {MINE},
        {MINE, TOO, "silent", OTHER, "hidden"},
        {MINE, TOO, "silent"},
    ]
    assert [answer.json["devices"] for answer in limited] == [3, 1, 5, 3]
    assert (await found(key(), "online")).items == []
    assert (await found(key(), "hidden")).items == []

    async def online() -> bool:
        return [item["device"] for item in (await search(filled, "online"))["items"]] == [OTHER] * 2

    await eventually(online, "the owner sees the other device online")
    assert (await found(key(), "online")).json["online"] == 0


async def test_what_names_another_device_is_refused_alike_whether_it_exists_or_not(filled: ReaderClient) -> None:
    for device in (OTHER, "nowhere", "", "hidden", MINE.upper(), f"{MINE}\x00"):
        refusals = [
            await filled.fetch("/readings", series(device, "humidity"), token=key()),
            *[await filled.fetch("/readings", series(device, "x", format=form), token=key()) for form in EXPORTS],
            await filled.fetch("/readings", {"device": [MINE, device], "format": "csv"}, token=key()),
            await filled.fetch("/readings", {"device": [MINE, device], "format": "csv"}, method="HEAD", token=key()),
            await filled.fetch("/readings/buckets", series(device, "humidity"), token=key()),
            await filled.fetch("/readings/latest", {"device": device}, token=key()),
            await filled.fetch("/series", {"device": device}, token=key()),
            await filled.fetch("/series", {"device": device, "completeness": "true"}, token=key()),
            await filled.fetch("/series/search", {"device": device}, token=key()),
            await filled.fetch("/live", {"device": device}, token=key()),
            await filled.fetch("/live", {"device": device}, method="HEAD", token=key()),
        ]
        assert {answer.status for answer in refusals} == {403}
        assert {answer.json["detail"] for answer in refusals if answer.body} == {"This token is for other devices."}
    gaps = await filled.fetch(f"/devices/{OTHER}/gaps", {"sensorType": "humidity"}, token=key())
    assert (gaps.status, gaps.json["code"]) == (403, "forbidden")
    assert (await filled.fetch(f"/devices/{MINE}/gaps", {"sensorType": "humidity"}, token=key())).status == 200
    asked = {"items": [{"sensorType": "humidity", "readings": [[1, 1]]}]}
    for device, status in ((OTHER, 403), ("nowhere", 403), (MINE, 200)):
        headers = {"Authorization": f"Bearer {key()}", "X-Device-Id": device}
        async with filled.http.post(f"{filled.url}/readings/stored", json=asked, headers=headers) as response:
            assert response.status == status
    assert len((await filled.fetch("/readings", series(MINE, "humidity"), token=key())).items) == 3


async def test_a_key_for_all_devices_reads_them_and_another_owners_key_reads_that_owners(filled: ReaderClient) -> None:
    whole = await filled.fetch("/series", token=ISSUING.api_key())
    assert devices_in(whole.items) == {MINE, TOO, OTHER}
    assert (await filled.fetch("/pipeline", token=ISSUING.api_key())).status == 200
    bob = ISSUING.api_key(sub=BOB, owner=BOB, devices=[MINE])
    assert [item["sensorType"] for item in (await filled.fetch("/series", token=bob)).items] == ["humidity"]
    writing = await filled.fetch("/series", token=ISSUING.api_key(scope="readings:write devices:manage"))
    assert (writing.status, writing.json["code"]) == (403, "forbidden")


@pytest.mark.parametrize("query", [{}, {"sensorType": "humidity"}, {"device": MINE}], ids=str)
@pytest.mark.parametrize("resumed", [False, True])
async def test_a_live_feed_has_the_readings_of_the_keys_devices_live_held_and_backfilled(
    filled: ReaderClient, persister: Persister, store: Store, query: dict[str, str], resumed: bool
) -> None:
    after = f"{now_ms() - 60_000}-{now_ms() - 60_000}-0" if resumed else None
    async with live_client(filled) as witness, live_client(filled, query, token=key(), after=after) as feed:
        for device, value in ((OTHER, "hidden"), (TOO, "too"), (MINE, "last")):
            await persister.broadcast(make_reading(value, now_ms(), sensor="humidity"), device=device)
        await persister.broadcast(make_reading("hidden", now_ms(), sensor="humidity"), device=MINE, owner=BOB)
        expected = {"last"} if "device" in query else {"last", "too"}
        await feed.until(lambda self: expected <= set(self.values), "the key's readings are received")
        await witness.until(lambda self: "hidden" in self.values, "the owner has received the other's")
        assert "hidden" not in feed.values
        assert devices_in([event.data for event in feed.events]) <= {MINE, TOO}
        assert (len(feed.values) > len(expected)) is resumed


async def test_a_live_feed_begins_without_a_word_about_other_devices_and_resumes_without_a_gap(
    filled: ReaderClient, persister: Persister, store: Store
) -> None:
    """Its first id would tell when the last reading of any device was received; persisters lag by 30 s here."""
    lagging = now_ms() - 30_000
    async with live_client(filled) as witness:
        await persister.broadcast(make_reading("hidden", lagging, received_ms=lagging), device=OTHER)
        await witness.receives("hidden")
    async with live_client(filled) as owner, live_client(filled, token=key()) as feed:
        assert owner.last_id.startswith(f"{lagging}-")
        assert 59_000 < now_ms() - int(feed.last_id.partition("-")[0]) < 70_000
    await store.insert(make_reading("late", lagging + 1000, received_ms=lagging + 1000, sensor="humidity"), device=TOO)
    async with live_client(filled, token=key(), after=feed.last_id) as again:
        await again.until(lambda self: "late" in self.values, "what was stored while the feed was cut is received")
        assert "hidden" not in again.values


async def test_a_live_feed_ends_with_its_key_and_the_owners_goes_on(
    filled: ReaderClient, persister: Persister, revocations: FakeRevocations
) -> None:
    async with live_client(filled) as stays, live_client(filled, token=key()) as feed:
        revocations.revoke("jti", "api-key-1")
        await feed.ends(5)
        assert (feed.names, feed.ended) == (["revoked"], "end")
        await persister.broadcast(make_reading(1))
        await stays.receives(1)


async def test_pages_of_the_series_of_some_devices_are_those_of_all_without_the_others(
    mongodb_database: Mongo, store: Store, rng: random.Random
) -> None:
    names = [(f"d-{number}", sensor) for number in range(12) for sensor in ("a", "b", "c")]
    await store.insert_series(names)
    await store.insert_series(names, BOB)
    names.sort()
    async with FromMongoDB.connected(*mongodb_database, timeout_s=10) as history:
        for _ in range(40):
            within = rng.sample([f"d-{number}" for number in range(14)], rng.randint(1, 6))
            sensor, limit = rng.choice([None, "b"]), rng.randint(1, 8)
            past = rng.choice([None, *names, ("d-1", "bb"), ("d-10", "")])
            expected = [
                one for one in names if one[0] in within and sensor in (None, one[1]) and (past is None or one > past)
            ]
            assert await history.series(OWNER, None, sensor, past, limit, within) == expected[:limit]
