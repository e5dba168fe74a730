"""Invariant I6: no request, however formed, returns anything of another owner.

Both owners have the same devices and sensor types. Every parameter of every call is tried with everything that a
curious client might put into it; a call or a parameter that is new and not tried here fails a test.
"""

import base64
import functools
import itertools
import struct
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.presence import Alive, Connected, OpenSession, SessionKey, encode_event
from broker.topology import PRESENCE_EXCHANGE
from runtime.times import now_ms
from testing.waiting import eventually
from tests.reader.harness import ReaderClient, Response, Store, make_reading, series, user_token
from tests.reader.live_client import Persister, live_client

# The requesting owner sorts between the two hidden ones, by every part of the key.
ALICE, MALLORY, ZOE = "user-1", "user-2", "user-3"
DEVICES, SENSORS = ("device-1", "device-2"), ("humidity", "temperature")
# Contained in all data of the others, and in nothing else.
MARKS = (b"hidden", b"424242")
EDGES = (-(2**63), 0, 2**63 - 1)


@functools.cache
def now() -> int:
    """The time of the first test here, in milliseconds; the readings are stored around it."""
    return now_ms()


def private(number: int, sensor: str, **more: Any) -> list[Any]:
    values: list[Any] = ["hidden", 424242, 424242.5]
    return [
        make_reading(
            value, now() - 1000 + number * 10 + n, n, sensor=sensor, unit="hidden", tags={"hidden": "hidden"}, **more
        )
        for n, value in enumerate(values)
    ]


async def fill(store: Store) -> None:
    for owner, device, sensor in itertools.product((ALICE, ZOE), DEVICES, SENSORS):
        for number in range(5):
            await store.insert(*private(number, sensor), device=device, owner=owner)
        # The gap between these ends with a mark.
        numbered = [make_reading("hidden", now() - 2000 + seq, 424240 + seq, sensor=sensor) for seq in (0, 3)]
        await store.insert(*numbered, device=device, owner=owner)
    for owner in (ALICE, ZOE):
        await store.insert(*private(0, "hidden"), device="hidden", owner=owner)
    for device, sensor in itertools.product(DEVICES, SENSORS):
        await store.insert(
            *(make_reading(number, now() - 990 + number, sensor=sensor) for number in range(9)),
            device=device,
            owner=MALLORY,
        )


@pytest.fixture
async def populated(reader_client: ReaderClient, store: Store, broker: EmbeddedBroker) -> AsyncIterator[ReaderClient]:
    """A reader with data of alice and zoe, some of which mallory cannot even guess."""
    await fill(store)
    async with broker.broadcaster(PRESENCE_EXCHANGE) as broadcaster:
        for owner in (ALICE, ZOE):
            broadcaster.broadcast(encode_event(Connected(owner, "device-1", SessionKey(1, "g"), now())))
            alive = Alive("g" + owner, now(), [OpenSession(owner, "device-2", 2)], [(owner, 424242)])
            broadcaster.broadcast(encode_event(alive))
        for owner in (ALICE, ZOE):
            await Persister(broker).broadcast(*private(9, "temperature"), owner=owner)

        async def known() -> bool:
            return b"84848.4" in (await reader_client.fetch("/pipeline", token=user_token(ZOE))).body

        await eventually(known, "presence is received")
        yield reader_client


ODD = [
    *(
        "hidden",
        ALICE,
        ZOE,
        "",
        " ",
        "*",
        ".*",
        "%",
        "%25",
        "$owner",
        "$$ROOT",
        "null",
        "true",
        "0",
        "x" * 256,
        "/",
        "..",
    ),
    *('{"$gt":""}', '{"$ne":null}', '{"$regex":".*"}', '["device-1"]', '{"$minKey":1}', "[object Object]", "' || 1==1"),
    *("\x00", "device-1\x00", f"{ALICE}\x00device-1", "\uffff", "\U0010ffff", "\u202e", "device-1\n", "DEVICE-1"),
    *(
        f"{ALICE}/device-1",
        f"{ALICE}:device-1",
        f'device-1","owner":"{ALICE}',
        "device-1&owner=user-1",
        "MinKey",
        "MaxKey",
    ),
]
TIMES = [
    "0",
    "-1",
    "-" + "9" * 18,
    "9" * 18,
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
    '{"$gt":0}',
    "MinKey",
    "\x00",
]


def position(ts: int, seq: int) -> str:
    return base64.urlsafe_b64encode(struct.pack(">qq", ts, seq)).decode()


def named(*parts: str) -> str:
    return base64.urlsafe_b64encode("\x00".join(parts).encode()).decode()


CURSORS = [
    *(position(ts, seq) for ts in EDGES for seq in EDGES),
    *(named(*parts) for parts in itertools.product(("", "a", ALICE, "device-1", "hidden", "\U0010ffff"), repeat=2)),
    *(
        named(ALICE, "device-1", "temperature"),
        named(ZOE, "", ""),
        named("a", '{"$gt":""}'),
        named("\uffff", "", "", ""),
    ),
]
IDS = [
    "1-1-0",
    "0-0-0",
    "1--" + "9" * 18 + "-0",
    "9" * 15 + "-" + "9" * 18 + "-1",
]
VALUES = {
    "device": [*DEVICES, *ODD],
    "sensorType": [*SENSORS, *ODD],
    "from": TIMES,
    "to": TIMES,
    "order": ["asc", "desc", "owner", "$natural"],
    "limit": ["1", "2", "1000", "1001", "-1", "0x10"],
    "cursor": CURSORS,
    "format": ["json", "csv", "ndjson", "parquet", "bson"],
    "for": ["spreadsheet", "hidden", "$value"],
    "end": ["true", "false", "$gt"],
    "every": ["1ms", "1s", "1d", "9999999999d", "$ts", "0s"],
    "values": ["number", "all", "$value"],
    "text": [
        *DEVICES,
        *SENSORS,
        *ODD,
        "online",
        "offline",
        "hidden online",
        "offline hidden",
        "3 temp 1",
        f"{ALICE} device-1",
        "device temp",
        "424242",
    ],
    "zone": ["UTC", "Europe/Berlin", "Asia/Kolkata", "$_id.owner", "../hidden", f"Etc/{ALICE}"],
    "completeness": ["true", "false", "$gt"],
    "offset": ["0", "1", "2147483647", "2147483648", "-1"],
}
# Parameters of no call: only the token determines the owner.
FOREIGN: list[dict[str, str]] = [
    *({name: ALICE} for name in ("owner", "user", "sub", "_id", "_id.owner", "$where", "tenant", "userId")),
    *({"filter": f'{{"_id.owner":"{ALICE}"}}'}, {"owner[$ne]": MALLORY}, {"device[$gt]": ""}, {"sensorType[$ne]": ""}),
    *({"device[]": "hidden"}, {"constructor": ALICE}, {"__proto__[owner]": ALICE}, {"collation": '{"locale":"en"}'}),
]
HEADERS = [
    *({name: ALICE} for name in ("X-Owner", "X-User", "X-Forwarded-User", "X-Device-Id", "From", "Cookie")),
    *(
        {"X-HTTP-Method-Override": "PUT"},
        {"X-Original-URL": "/"},
        {"Accept": "application/bson"},
        {"Range": "bytes=0-"},
    ),
]
ONE = series(DEVICES[0], SENSORS[1])
GAPS = "/devices/{id}/gaps"
CALLS: dict[str, dict[str, Any]] = {
    "/readings": ONE,
    "/readings/buckets": ONE | {"every": "1s"},
    "/readings/latest": {},
    "/series": {},
    "/series/search": {},
    "/pipeline": {},
    GAPS: {"sensorType": SENSORS[1]},
}


def of_device(path: str, device: str = DEVICES[0]) -> str:
    return path.replace("{id}", quote(device, safe=""))


def parameters(reader_client: ReaderClient) -> dict[str, set[str]]:
    return {
        call.path: {field.encode_name for field in msgspec.structs.fields(call.query)} if call.query else set()
        for call in reader_client.calls
        if call.method == "GET"
    }


async def test_every_call_and_every_parameter_is_tried_here(reader_client: ReaderClient) -> None:
    declared = parameters(reader_client)
    assert set(declared) == {*CALLS, "/live"}
    assert set().union(*declared.values()) == set(VALUES)
    assert [call.path for call in reader_client.calls if call.request_headers] == ["/readings/stored", "/live"]
    # It has no query; tests/reader/http/test_stored.py asks for readings of others.
    assert [call.path for call in reader_client.calls if call.method != "GET"] == ["/readings/stored"]


def require_nothing_hidden(answer: Response, *shown: Any) -> None:
    assert answer.status in (200, 404, 422), (answer.status, shown)
    for mark in MARKS:
        assert mark not in answer.body, shown
    assert b"hidden" not in repr(sorted(answer.headers.items())).encode() or "hidden" in repr(shown)


@pytest.mark.parametrize("path", CALLS)
async def test_the_owners_themselves_are_shown_what_must_not_come_out(populated: ReaderClient, path: str) -> None:
    for owner in (ALICE, ZOE):
        body = (await populated.fetch(of_device(path), CALLS[path], token=user_token(owner))).body
        assert any(mark in body for mark in (*MARKS, b"84848.4", b'"connected":true'))


@pytest.mark.parametrize("path", CALLS)
async def test_no_value_of_any_parameter_brings_out_what_is_anothers(populated: ReaderClient, path: str) -> None:
    token, tried = user_token(MALLORY), 0
    cursors = [*CURSORS, *(position(now(), seq) for seq in EDGES)]
    for owner in (ALICE, ZOE):  # cursors that were given to others
        for order in ("asc", "desc"):
            answer = await populated.fetch(
                of_device(path), CALLS[path] | {"limit": 1, "order": order}, token=user_token(owner)
            )
            cursors += [answer.json["nextCursor"]] if "nextCursor" in answer.json else []
    for name in sorted(parameters(populated)[path]):
        for value in cursors if name == "cursor" else VALUES[name]:
            for more in ({}, {"order": "desc"}, {"format": "csv"}) if path == "/readings" else ({},):
                query = CALLS[path] | more | {name: value}
                require_nothing_hidden(await populated.fetch(of_device(path), query, token=token), path, query)
                tried += 1
    for query in FOREIGN:
        answer = await populated.fetch(of_device(path), CALLS[path] | query, token=token)
        require_nothing_hidden(answer, path, query)
        assert answer.body == (await populated.fetch(of_device(path), CALLS[path], token=token)).body
    for headers in HEADERS:
        require_nothing_hidden(
            await populated.fetch(of_device(path), CALLS[path], token=token, headers=headers), path, headers
        )
    print(f"{path}: {tried} values")
    assert tried >= 100 or path == "/pipeline"


@pytest.mark.parametrize("path", ["/readings", "/readings/buckets", "/readings/latest", "/series", "/series/search"])
async def test_no_pair_of_names_brings_out_what_is_anothers(populated: ReaderClient, path: str) -> None:
    token = user_token(MALLORY)
    for device, sensor in itertools.product(("hidden", ALICE, "\x00", '{"$gt":""}', *DEVICES), repeat=2):
        for query in (series(device, sensor), series(sensor, device)):
            require_nothing_hidden(
                await populated.fetch(of_device(path), CALLS[path] | query, token=token), path, query
            )


async def test_no_device_in_an_address_brings_out_what_is_anothers(populated: ReaderClient) -> None:
    for device in VALUES["device"]:
        for sensor in (*SENSORS, "hidden"):
            path = of_device(GAPS, device)
            answer = await populated.fetch(path, {"sensorType": sensor}, token=user_token(MALLORY))
            require_nothing_hidden(answer, path, sensor)


@pytest.mark.parametrize("format_", ["csv", "ndjson", "parquet"])
async def test_no_export_of_many_series_has_one_of_anothers(populated: ReaderClient, format_: str) -> None:
    names: list[dict[str, Any]] = [
        {},
        {"device": list(DEVICES)},
        {"sensorType": "hidden"},
        {"sensorType": ["hidden", *SENSORS]},
        {"device": ["hidden", *DEVICES]},
        {"device": "hidden"},
        {"sensorType": list(SENSORS), "from": 0, "to": now() + 1_000_000},
    ]
    for query in names:
        shown = await populated.fetch("/readings", query | {"format": format_}, token=user_token(ALICE))
        assert shown.status == 200
        answer = await populated.fetch("/readings", query | {"format": format_}, token=user_token(MALLORY))
        if answer.status == 404:  # it names the device, as the request did
            assert "hidden" in repr(query.get("device"))
            continue
        require_nothing_hidden(answer, query)
        if query:
            continue
        nobody = await populated.fetch("/readings", query | {"format": format_}, token=user_token("nobody"))
        assert len(nobody.body) < len(answer.body) < len(shown.body)


async def test_what_mallory_sees_is_mallorys_alone(populated: ReaderClient) -> None:
    token = user_token(MALLORY)
    listed = (await populated.fetch("/series", token=token)).items
    assert [(item["device"], item["sensorType"]) for item in listed] == list(itertools.product(DEVICES, SENSORS))
    assert {item["connected"] for item in listed} == {False}
    assert [item["value"] for item in (await populated.fetch("/readings/latest", token=token)).items] == [8] * 4
    assert [item["value"] for item in (await populated.fetch("/readings", ONE, token=token)).items] == list(range(9))
    assert (await populated.fetch("/pipeline", token=token)).json == {"readingsPerSecond": 0, "lagSeconds": None}
    assert (await populated.fetch("/series", token=user_token("nobody"))).items == []


FILTERS: list[dict[str, str]] = [
    *({}, {"device": "device-1"}, {"sensorType": "temperature"}, {"device": "device-1", "sensorType": "temperature"}),
    *({"owner": ALICE}, {"device": "device-1", "owner": ALICE}, {"device": "device-1", "sensorType": "humidity"}),
]


async def test_no_filter_and_no_place_to_go_on_from_brings_anothers_readings_into_a_feed(
    populated: ReaderClient, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reader.live.from_live.FLUSH_EVERY_S", 0.02)
    persister = Persister(broker)
    for after in (None, "1-1-0", f"{now() - 500}-{now() - 995}-0"):
        for chosen in FILTERS:
            async with (
                live_client(populated, {"device": "device-1"}, token=user_token(ZOE)) as witness,
                live_client(populated, chosen, token=user_token(MALLORY), after=after) as feed,
            ):
                for owner in (ALICE, ZOE):
                    for sensor in SENSORS:
                        await persister.broadcast(*private(20, sensor), owner=owner, device="device-1")
                await witness.until(lambda self: len(self.values) == len(SENSORS), "the owner has received it")
                for sensor in SENSORS:
                    await persister.broadcast(
                        make_reading("mine", now() + 10, sensor=sensor), owner=MALLORY, device="device-1"
                    )
                await feed.until(lambda self: "mine" in self.values, "the own reading is received")
            for mark in MARKS:
                assert mark.decode() not in repr(feed.events)
                assert mark.decode() in repr(witness.events)


async def test_no_other_text_in_a_feeds_parameters_opens_anothers(populated: ReaderClient) -> None:
    for name in ("device", "sensorType"):
        for value in VALUES[name]:
            answer = await populated.fetch("/live", {name: value}, method="HEAD", token=user_token(MALLORY))
            assert answer.status in (200, 422)
    for last in (*IDS, f"{now()}-{now()}-0", f"{now()}-1-1-{ALICE}"):
        answer = await populated.fetch(
            "/live", method="HEAD", headers={"Last-Event-ID": last}, token=user_token(MALLORY)
        )
        assert answer.status in (200, 422)
