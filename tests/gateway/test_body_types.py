"""`POST /readings` with SenML and with line protocol: the results, limits and promise of JSON."""

import asyncio
import gzip
import time
import zlib
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.interface import BrokerUnavailable, QueueFull
from readings.reading import GENERATED_SEQ_START
from tests.gateway.fakes import FakeBroker, documents
from tests.gateway.harness import ISSUING, TS, RunningGateway, gateway, stored
from tests.gateway.http_client import JSON, MIB, assert_problem, assert_taken, post

SENML = {"Content-Type": "application/senml+json"}
CBOR = {"Content-Type": "application/senml+cbor"}
LINES = {"Content-Type": "application/vnd.influx.line"}
TEXT = {"Content-Type": "text/plain; charset=utf-8"}
NS = TS * 10**6

# The same two readings of pump.flow: 2.5 at TS and 250 ns, 3 a second later.
PACK = b'[{"bn":"pump.","n":"flow","bt":1750000000.00000025,"v":2.5},{"n":"flow","t":1,"v":3}]'
CBOR_PACK = bytes.fromhex(
    "82 a4 21 65 70756d702e 00 64 666c6f77 22 c4 82 27 1b 026db992a3b18019 02 f9 4100a3 00 64 666c6f77 06 01 02 03"
)
LINE_BODY = f"pump flow=2.5 {NS + 250}\npump flow=3i {NS + 250 + 10**9}\n".encode()
BODIES = [(SENML, "", PACK), (CBOR, "", CBOR_PACK), (LINES, "", LINE_BODY), (TEXT, "?format=influx", LINE_BODY)]
EACH = pytest.mark.parametrize(("headers", "query", "body"), BODIES, ids=["JSON", "CBOR", "lines", "text"])
pytestmark = pytest.mark.usefixtures("confirming")


@EACH
async def test_readings_are_stored_under_the_device_of_the_token_or_of_the_header(
    stalled: RunningGateway, fake_broker: FakeBroker, headers: dict[str, str], query: str, body: bytes
) -> None:
    before = time.time_ns() // 1_000_000
    assert_taken(await post(stalled, body, headers, query=query), 2)
    for_user = headers | {"X-Device-Id": "kitchen:1"}
    assert_taken(await post(stalled, body, for_user, query=query, token=ISSUING.user()), 2)
    found = documents(fake_broker)
    keys = [tuple(document["_id"].values()) for document in found]
    assert [(*key[:3], int(key[3]), key[4]) for key in keys] == [
        ("user-1", device, "pump.flow", ts, 250) for device in ("device-1", "kitchen:1") for ts in (TS, TS + 1000)
    ]
    assert [document["value"] for document in found] == [2.5, 3, 2.5, 3]
    assert all(before <= int(document["receivedAt"]) <= time.time_ns() // 1_000_000 for document in found)
    assert [document.get("location") for document in found] == ["roof", "roof", None, None]
    assert_problem(await post(stalled, body, headers, query=query, token=ISSUING.user()), 422, "device_required")


@EACH
async def test_packed_bodies_are_taken_and_bounded(
    stalled: RunningGateway, headers: dict[str, str], query: str, body: bytes
) -> None:
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        assert_taken(await post(stalled, packed, headers | {"Content-Encoding": encoding}, query=query), 2)
    zipped = headers | {"Content-Encoding": "gzip"}
    assert_problem(await post(stalled, gzip.compress(body)[:-1], zipped, query=query), 400)
    assert_problem(await post(stalled, gzip.compress(body + b" " * MIB), zipped, query=query), 413, "too_large")
    assert_problem(await post(stalled, body + b" " * MIB, headers, query=query), 413, "too_large")


@EACH
async def test_nothing_is_promised_before_the_confirm_or_without_it(
    stalled: RunningGateway, fake_broker: FakeBroker, headers: dict[str, str], query: str, body: bytes
) -> None:
    fake_broker.outgoing.auto_confirm = False
    call = asyncio.ensure_future(post(stalled, body, headers, query=query))
    await fake_broker.outgoing.wait_published(1)
    assert not call.done()
    fake_broker.outgoing.confirm(0)
    assert_taken(await call, 2)
    for failure, code in ((BrokerUnavailable("away"), "unavailable"), (QueueFull("full"), "busy")):
        fake_broker.outgoing.failure = failure
        assert_problem(await post(stalled, body, headers, query=query), 503, code)


async def test_the_rate_limits_count_readings_of_every_encoding(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, device_readings_per_minute=7) as found:
        for headers, query, body in BODIES[:3]:
            assert_taken(await post(found, body, headers, query=query), 2)
        assert_problem(await post(found, b"{", SENML), 400)  # what is refused counts as one
        for headers, query, body in BODIES:
            assert_problem(await post(found, body, headers, query=query), 429, "rate_limited")


async def test_the_good_are_taken_the_bad_rejected_and_new_names_are_told(
    running: RunningGateway, embedded: EmbeddedBroker
) -> None:
    pack = [{"bn": "3303/0/", "n": "5700", "v": 1}, {"n": "5701", "vs": "°C"}, {"n": "5602", "s": 1}, 7]
    answer = await post(running, pack, SENML)
    assert answer.status == 202
    assert answer.json["accepted"] == 2
    assert answer.rejected == [(2, "invalid_value"), (3, "invalid_reading")]
    assert answer.json["renamed"] == [
        {"index": 0, "name": "3303/0/5700", "sensorType": "3303_0_5700"},
        {"index": 1, "name": "3303/0/5701", "sensorType": "3303_0_5701"},
    ]
    answer = await post(running, b"disk,path=/ used\\ %=81.5,mode=rw\nbroken\n# 1\nmem free=1u\n", LINES)
    assert (answer.json["accepted"], answer.rejected) == (2, [(1, "invalid_value"), (2, "invalid_reading")])
    assert answer.json["renamed"] == [{"index": 0, "name": "disk.used %", "sensorType": "disk.used__"}]
    assert [found["detail"].split(":")[0] for found in answer.json["rejected"]] == ["line 1, mode", "line 2"]
    found = await stored(embedded, 4)
    assert [one["value"] for one in found] == [1, "°C", 81.5, 1]
    assert [one.get("tags") for one in found] == [None, None, {"path": "/"}, None]
    assert all(one["_id"]["seq"] >= GENERATED_SEQ_START for one in found)


async def test_a_body_with_nothing_good_is_answered_like_any_other(
    stalled: RunningGateway, fake_broker: FakeBroker
) -> None:
    assert_taken(await post(stalled, b'[{"n":"a"}]', SENML), 0, [(0, "invalid_value")])
    assert_taken(await post(stalled, b"x", LINES), 0, [(0, "invalid_reading")])
    assert fake_broker.outgoing.messages == []


@pytest.mark.parametrize(
    ("precision", "time"), [("ns", NS), ("us", TS * 1000), ("ms", TS), ("s", TS // 1000), ("n", NS), ("u", TS * 1000)]
)
async def test_the_precision_is_that_of_the_query(
    stalled: RunningGateway, fake_broker: FakeBroker, precision: str, time: int
) -> None:
    body = f"m,k=x v=1 {time}".encode()
    assert_taken(await post(stalled, body, LINES, query=f"?precision={precision}&seriesTags=k,l"), 1)
    (document,) = documents(fake_broker)
    assert (document["_id"]["sensorType"], int(document["_id"]["ts"]), document["_id"]["seq"]) == ("m.x.v", TS, 0)


REFUSED: dict[str, tuple[bytes, dict[str, str], str, int, str | None]] = {
    "an empty pack": (b"[]", SENML, "", 422, "batch_size"),
    "an empty pack of CBOR": (b"\x80", CBOR, "", 422, "batch_size"),
    "no lines": (b"\n# nothing\n", LINES, "", 422, "batch_size"),
    "1,001 records": (b"[" + b",".join([b'{"n":"a","v":1}'] * 1001) + b"]", SENML, "", 422, "batch_size"),
    "1,001 records of CBOR": (b"\x9f" + b"\xa2\x00\x61a\x02\x01" * 1001 + b"\xff", CBOR, "", 422, "batch_size"),
    "1,001 fields": (b"m a=1\n" * 1001, LINES, "", 422, "batch_size"),
    "an empty body": (b"", SENML, "", 400, None),
    "an empty body of CBOR": (b"", CBOR, "", 400, None),
    "broken JSON": (b'[{"n":"a","v":1}', SENML, "", 400, None),
    "broken CBOR": (b"\x82\xa0", CBOR, "", 400, None),
    "JSON as CBOR": (PACK, CBOR, "", 422, "invalid_reading"),
    "CBOR as JSON": (CBOR_PACK, SENML, "", 400, None),
    "deep JSON": (b"[" * 100_000, SENML, "", 400, None),
    "deep CBOR": (b"\x81" * 100_000, CBOR, "", 400, None),
    "lines that are not UTF-8": (b"m v=1\nm v=\xff", LINES, "", 400, None),
    "a record that is no pack": (b'{"n":"a","v":1}', SENML, "", 422, "invalid_reading"),
    "a label to be understood": (b'[{"n":"a","v":1,"x_":0}]', SENML, "", 422, "invalid_reading"),
    "a later version": (b'[{"n":"a","v":1},{"bver":11,"n":"a","v":1}]', SENML, "", 422, "invalid_reading"),
    "text without a format": (LINE_BODY, TEXT, "", 415, None),
    "a format of another name": (LINE_BODY, TEXT, "?format=csv", 422, None),
    "a format twice": (LINE_BODY, TEXT, "?format=influx&format=influx", 422, None),
    "an unknown precision": (LINE_BODY, LINES, "?precision=d", 422, None),
    "seriesTags without a name": (LINE_BODY, LINES, "?seriesTags=a,,b", 422, None),
    "another charset": (LINE_BODY, {"Content-Type": "application/vnd.influx.line; charset=latin-1"}, "", 415, None),
    "a stream of SenML": (PACK, {"Content-Type": "application/sensml+json"}, "", 415, None),
}


@pytest.mark.parametrize(("body", "headers", "query", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_a_body_that_is_not_taken_is_refused_whole(
    stalled: RunningGateway,
    fake_broker: FakeBroker,
    body: bytes,
    headers: dict[str, str],
    query: str,
    status: int,
    code: str | None,
) -> None:
    answer = await post(stalled, body, headers, query=query)
    assert answer.status == status, answer.json
    assert (answer.json.get("code"), answer.headers["Content-Type"]) == (code, "application/problem+json")
    assert fake_broker.outgoing.messages == []


async def test_json_takes_no_notice_of_the_query_and_tells_of_no_names(stalled: RunningGateway) -> None:
    query = "?format=influx&precision=parsec&seriesTags=,"
    answer: Any = await post(stalled, [{"value": 1, "ts": TS}], JSON, query=query)
    assert (answer.status, answer.json) == (202, {"accepted": 1, "rejected": []})
