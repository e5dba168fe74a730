"""`GET /series/search`: series and devices by name, searched and paged by the server."""

from collections.abc import AsyncIterator

import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.presence import Connected, SessionKey, encode_event
from broker.topology import PRESENCE_EXCHANGE
from runtime.times import now_ms
from testing.waiting import eventually
from tests.reader.auth_stub import AuthStub, labels, search
from tests.reader.harness import DEVICE, TS, Mongo, ReaderClient, Store, make_reading, open_reader


@pytest.fixture
def auth() -> AuthStub:
    return AuthStub()


@pytest.fixture
async def named(
    broker: EmbeddedBroker, mongodb_database: Mongo, auth: AuthStub, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ReaderClient]:
    """A reader that rebuilds its list for each request."""
    monkeypatch.setattr("reader.history.catalogue_cache.MIN_TTL_S", 0.0)
    monkeypatch.setattr("reader.history.catalogue_cache.TTL_FACTOR", 0)
    async with open_reader(broker, mongodb_database, devices=auth.fetch) as found:
        yield found


async def test_a_series_has_its_name_its_place_and_its_newest_reading(
    named: ReaderClient, store: Store, auth: AuthStub
) -> None:
    auth.add("d-1", "press-1")
    await store.insert(make_reading(1, TS), make_reading(2, TS + 1000, quality="bad"), device="d-1")
    found = await search(named)
    latest = (await named.readings("d-1", order="desc", limit=1)).items[0]
    assert latest["quality"] == "bad"
    assert found == {
        "total": 1,
        "devices": 1,
        "online": 0,
        "items": [
            {
                "device": "d-1",
                "name": "press-1",
                "location": "hall 3",
                "registered": True,
                "sensorType": "temperature",
                "connected": False,
                "lastSeenAt": "2025-06-15T15:06:41.250Z",
                "lastReadingAt": "2025-06-15T15:06:41.000Z",
                "latest": latest,
            }
        ],
    }


async def test_what_is_not_registered_and_what_has_sent_nothing_are_there_too(
    named: ReaderClient, store: Store, auth: AuthStub
) -> None:
    auth.add("d-1", "press-1", "pressure", location={"lat": 48.5, "lon": 11.25})
    await store.insert(make_reading(1), device="a")
    first, second = (await search(named))["items"]
    assert first | {"latest": None} == {
        "device": "a",
        "name": None,
        "registered": False,
        "sensorType": "temperature",
        "connected": False,
        "lastSeenAt": first["latest"]["receivedAt"],
        "lastReadingAt": first["latest"]["ts"],
        "latest": None,
    }
    assert second == {
        "device": "d-1",
        "name": "press-1",
        "location": {"lat": 48.5, "lon": 11.25},
        "registered": True,
        "sensorType": "pressure",
        "connected": False,
        "lastSeenAt": None,
        "lastReadingAt": None,
        "latest": None,
    }


async def test_the_order_is_that_of_people_and_pages_follow_it(
    named: ReaderClient, store: Store, auth: AuthStub
) -> None:
    names = ["sim-10", "sim-2", "Sim-1", "a", "B", "sim-2b", "10", "9"]
    for number, name in enumerate(names):
        auth.add(f"id-{number}", name)
        await store.insert(make_reading(1, sensor="t10"), make_reading(1, sensor="t9"), device=f"id-{number}")
    expected = [
        (name, sensor)
        for name in ("9", "10", "a", "B", "Sim-1", "sim-2", "sim-2b", "sim-10")
        for sensor in ("t9", "t10")
    ]
    assert await labels(named) == expected
    for limit in (1, 3, 200):
        paged = [one for offset in range(0, 20, limit) for one in await labels(named, offset=offset, limit=limit)]
        assert paged == expected
    beyond = await search(named, offset=100_000)
    assert (beyond["total"], beyond["items"]) == (16, [])


SEARCHES = {
    "": 4,
    "press": 2,
    "PRESS temp": 1,
    "hall": 3,
    "hall 3 press temp": 1,
    "m\u00dcnchen": 1,
    "mu\u0308nchen": 1,
    "48.5": 1,
    "press offline": 1,
    "online": 1,
    "offline": 3,
    "online offline": 0,
    "nothing": 0,
    "hum": 1,
    "press press-1 p": 1,
    "3\thall": 3,
}


async def test_every_word_is_found_in_name_id_type_place_or_state(
    named: ReaderClient, store: Store, auth: AuthStub, broker: EmbeddedBroker
) -> None:
    auth.add("d-1", "press-1", location="hall 3")
    auth.add("d-2", "press-2", "humidity", location="M\u00fcnchen, Halle 33")
    auth.add("d-3", "oven", location={"lat": 48.5, "lon": 11})
    await store.insert(make_reading(1), device="d-1")
    await store.insert(make_reading(1), device="hall-3")
    async with broker.broadcaster(PRESENCE_EXCHANGE) as broadcaster:
        broadcaster.broadcast(encode_event(Connected("user-1", "d-2", SessionKey(1, "g"), now_ms())))

        async def online() -> bool:
            return bool((await search(named))["online"] == 1)

        await eventually(online, "the device is online")
    for text, count in SEARCHES.items():
        found = await search(named, text)
        assert (text, found["total"], len(found["items"])) == (text, count, count)
        assert (found["devices"], found["online"]) == (4, 1)
    assert [item["connected"] for item in (await search(named, "press"))["items"]] == [False, True]


async def test_a_reading_of_the_future_stands_apart(named: ReaderClient, store: Store) -> None:
    now = now_ms()
    await store.insert(
        make_reading(1, now - 5000), make_reading(2, now + 30_000), make_reading(3, now + 3_600_000, received_ms=now)
    )
    await store.insert(make_reading(4, now + 3_600_000), device="only-ahead")
    first, second = (await search(named))["items"]
    assert (first["device"], first["latest"]["value"], first["ahead"]["value"]) == (DEVICE, 2, 3)
    assert (first["lastReadingAt"], first["lastSeenAt"]) == (first["latest"]["ts"], first["latest"]["receivedAt"])
    assert (second["latest"], second["lastReadingAt"], second["ahead"]["value"]) == (None, None, 4)


async def test_one_device_can_be_selected(named: ReaderClient, store: Store) -> None:
    for device in ("d-1", "d-10"):
        await store.insert(make_reading(1), make_reading(1, sensor="u"), device=device)
    found = await search(named, device="d-1")
    assert [(item["device"], item["sensorType"]) for item in found["items"]] == [("d-1", "temperature"), ("d-1", "u")]
    assert (found["total"], found["devices"]) == (2, 2)
    assert (await search(named, device="nobody"))["items"] == []


BAD = {
    "text": ["x" * 257],
    "device": ["", "x" * 257],
    "offset": ["-1", "2147483648", "x", "", "1.0"],
    "limit": ["0", "201", "x", ""],
}


async def test_a_parameter_in_another_form_is_named(named: ReaderClient) -> None:
    for name, values in BAD.items():
        for value in values:
            print(name, repr(value))
            assert (await named.fetch("/series/search", {name: value})).invalid_fields == [name]


NAMES = [
    "\u65e5\u672c",
    "\u00c4rger",
    "a b",
    "<b>bold</b>",
    "a\nb",
    '"',
    "\U0001f321",
    "%41",
    "x" * 200,
    "1" * 200,
    "\x00",
]


async def test_any_text_is_a_name(named: ReaderClient, store: Store) -> None:
    for name in NAMES:
        await store.insert(make_reading(1, sensor=name), device=name)
    assert sorted(await labels(named)) == sorted((name, name) for name in NAMES)
    for name in NAMES:
        if len(name.split()) == 1:
            assert (name, name) in await labels(named, name.upper())


async def test_an_owner_who_has_nothing_has_an_empty_list(named: ReaderClient, store: Store, auth: AuthStub) -> None:
    auth.add("d-1", "press-1")
    await store.insert(make_reading(1), device="d-1")
    assert await search(named, owner="nobody") == {"total": 0, "devices": 0, "online": 0, "items": []}


async def test_a_device_that_was_removed_is_shown_by_its_id(named: ReaderClient, store: Store, auth: AuthStub) -> None:
    auth.add("d-1", "press-1")
    auth.add("d-2", "press-2")
    await store.insert(make_reading(1), device="d-1")
    assert [(item["name"], item["registered"]) for item in (await search(named))["items"]] == [
        ("press-1", True),
        ("press-2", True),
    ]
    auth.remove("d-1")
    auth.remove("d-2")  # which has sent nothing
    (item,) = (await search(named))["items"]
    assert (item["device"], item["name"], item["registered"], "location" in item) == ("d-1", None, False, False)


async def test_a_registered_device_is_not_there_twice_when_it_sends_something_else(
    named: ReaderClient, store: Store, auth: AuthStub
) -> None:
    auth.add("d-1", "press-1", "pressure")
    await store.insert(make_reading(1, sensor="humidity"), device="d-1")
    assert await labels(named) == [("press-1", "humidity")]


async def test_what_has_readings_no_more_is_there_without_them(named: ReaderClient, store: Store) -> None:
    await store.insert_series([("quiet", "t")])
    (item,) = (await search(named))["items"]
    assert (item["latest"], item["lastReadingAt"], item["lastSeenAt"]) == (None, None, None)
