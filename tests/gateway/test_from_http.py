"""`POST /readings` on a real port: what each body is answered with, and that a socket would have answered the same."""

import asyncio
import gzip
import itertools
import json
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from structlog.testing import capture_logs

from access.revocations import RevocationList
from access.tokens import KeySet
from broker.embedded.broker import EmbeddedBroker
from broker.interface import BrokerUnavailable, ConfirmLate, QueueFull, Unroutable
from broker.topology import DEAD_LETTERS, READINGS, READINGS_EXCHANGE, Queue
from readings.exported import ExportedReading
from readings.http_schema import ReadingSent
from readings.reading import GENERATED_SEQ_START
from runtime.http import bodies
from testing.issuer import Issuer
from testing.waiting import eventually
from tests.gateway.fakes import FakeBroker, documents
from tests.gateway.harness import ISSUING, TS, RunningGateway, closed, gateway, reading, stored
from tests.gateway.http_client import JSON, MIB, Answer, assert_problem, assert_taken, bearer, post
from tests.readings.cases import good_readings, json_texts, near_readings

NDJSON = {"Content-Type": "application/x-ndjson"}
GZIP = JSON | {"Content-Encoding": "gzip"}
ONE = b'{"value":1}'
PACKED = gzip.compress(ONE, mtime=0)


# What is taken


async def test_a_reading_is_stored_under_owner_and_device_of_its_token(
    running: RunningGateway, embedded: EmbeddedBroker
) -> None:
    before = time.time_ns() // 1_000_000
    assert_taken(await post(running, reading(21.5, seq=3, unit="°C", quality="bad")), 1)
    (document,) = await stored(embedded, 1)
    assert {name: document["_id"][name] for name in ("owner", "device", "sensorType", "seq")} == {
        "owner": "user-1",
        "device": "device-1",
        "sensorType": "temperature",
        "seq": 3,
    }
    assert before <= int(document["receivedAt"]) <= time.time_ns() // 1_000_000
    assert (document["value"], document["unit"], document["location"]) == (21.5, "°C", "roof")
    assert (document["quality"], list(document)[-1]) == ("bad", "quality")


async def test_a_users_token_names_the_device_in_a_header(running: RunningGateway, embedded: EmbeddedBroker) -> None:
    headers = JSON | {"X-Device-Id": "kitchen:1"}
    assert_taken(await post(running, reading(1, sensorType="a"), headers, token=ISSUING.user()), 1)
    (document,) = await stored(embedded, 1)
    assert (document["_id"]["owner"], document["_id"]["device"]) == ("user-1", "kitchen:1")


async def test_a_device_may_name_itself(running: RunningGateway) -> None:
    assert_taken(await post(running, reading(1), JSON | {"X-Device-Id": "device-1"}), 1)


async def test_an_array_takes_the_good_readings_and_names_the_bad_ones(
    running: RunningGateway, embedded: EmbeddedBroker
) -> None:
    batch = [reading(1), reading(None), reading(2), reading(3, x=1), {"value": 4, "ts": "now"}, 7]
    bad = [(1, "invalid_value"), (3, "invalid_field"), (4, "invalid_ts"), (5, "invalid_reading")]
    assert_taken(await post(running, batch), 2, bad)
    assert [document["value"] for document in await stored(embedded, 2)] == [1, 2]


async def test_a_thousand_readings_are_taken(running: RunningGateway, embedded: EmbeddedBroker) -> None:
    assert_taken(await post(running, [reading(number, seq=number) for number in range(1000)]), 1000)
    assert [document["value"] for document in await stored(embedded, 1000)] == list(range(1000))


ALONE: list[tuple[bytes, str]] = [
    (b'{"value":null}', "invalid_value"),
    (b"{}", "invalid_value"),
    (b'{"value":1e999}', "invalid_value"),
    (b'{"value":' + b"9" * 5000 + b"}", "invalid_value"),
    (b' \r\n\t{"value":1,"ts":1.5}', "invalid_ts"),
    (b'{"value":1,"seq":1}', "invalid_ts"),
    (b'{"value":1,"owner":"x"}', "invalid_field"),
    (b'{"value":1,"location":{"lat":91,"lon":0}}', "invalid_field"),
    (b'{"value":1,"unit":"a\\u0000"}', "invalid_field"),
    (b'{"value":1,"location":"a\\u0007"}', "invalid_field"),
    (b'{"value":1,"tags":{"a":"\\u0085"}}', "invalid_field"),
    (b'{"value":1,"value":2}', "invalid_reading"),
    (b'{"value":1,"tags":{"a":"b","a":"c"}}', "invalid_reading"),
    (b'{"value":1,"quality":"great"}', "invalid_field"),
    (b'{"value":1,"quality":1}', "invalid_field"),
]


@pytest.mark.parametrize(("body", "code"), ALONE, ids=lambda part: str(part)[:40])
async def test_one_bad_reading_is_reported_as_in_an_array(
    stalled: RunningGateway, fake_broker: FakeBroker, body: bytes, code: str
) -> None:
    assert_taken(await post(stalled, body), 0, [(0, code)])
    assert_taken(await post(stalled, b"[" + body + b"]"), 0, [(0, code)])
    assert fake_broker.outgoing.messages == []


LINES: dict[str, tuple[bytes, list[int], list[tuple[int, str]]]] = {
    "with a last newline": (b'{"value":1}\n{"value":2}\n', [1, 2], []),
    "without a last newline": (b'{"value":1}\n{"value":2}', [1, 2], []),
    "CRLF": (b'{"value":1}\r\n{"value":2}\r\n', [1, 2], []),
    "blank lines": (b'\n\n{"value":1}\n \t\r\n\n{"value":2}\n\n', [1, 2], []),
    "one line": (b'{"value":1}', [1], []),
    "a broken line": (b'{"value":1}\n{"value":\n{"value":3}', [1, 3], [(1, "invalid_reading")]),
    "only a broken line": (b"{", [], [(0, "invalid_reading")]),
    "two readings on a line": (b'{"value":1}{"value":2}\n{"value":3}', [3], [(0, "invalid_reading")]),
    "a reading with a comma": (b'{"value":1},\n{"value":2}', [2], [(0, "invalid_reading")]),
    "an array on a line": (b'[{"value":1}]\n{"value":2}', [2], [(0, "invalid_reading")]),
    "invalid UTF-8": (b'{"value":"\xff"}\n{"value":2}', [2], [(0, "invalid_reading")]),
    "NaN": (b'{"value":NaN}\n{"value":2}', [2], [(0, "invalid_reading")]),
    "too deep": (b"[" * 100_000 + b"]" * 100_000 + b'\n{"value":2}', [2], [(0, "invalid_reading")]),
    "half a surrogate pair": (b'{"value":"\\ud800"}\n{"value":2}', [2], [(0, "invalid_reading")]),
    "a name twice": (b'{"value":1,"value":4}\n{"value":2}', [2], [(0, "invalid_reading")]),
    "beyond all numbers": (b'{"value":1e999}\n{"value":2}', [2], [(0, "invalid_value")]),
    # A line with such a number is JSON only when its rest is: it must not end the array, nor bring more into it.
    "beyond all numbers, and the end": (b'1e999]\n{"value":2}', [2], [(0, "invalid_reading")]),
    "beyond all numbers, and more": (b'1e999,{"value":1}\n{"value":2}', [2], [(0, "invalid_reading")]),
}


@pytest.mark.parametrize(("body", "values", "bad"), LINES.values(), ids=LINES)
async def test_lines_are_taken_each_on_its_own(
    stalled: RunningGateway, fake_broker: FakeBroker, body: bytes, values: list[int], bad: list[tuple[int, str]]
) -> None:
    fake_broker.outgoing.auto_confirm = True
    assert_taken(await post(stalled, body, NDJSON), len(values), bad)
    assert [document["value"] for document in documents(fake_broker)] == values


@pytest.mark.parametrize(
    "content_type",
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "Application/NDJSON; charset=UTF-8"],
)
async def test_every_name_of_ndjson_is_taken(
    stalled: RunningGateway, fake_broker: FakeBroker, content_type: str
) -> None:
    fake_broker.outgoing.auto_confirm = True
    assert_taken(await post(stalled, b'{"value":1}\n{"value":2}', {"Content-Type": content_type}), 2)


@pytest.mark.parametrize(
    ("encoding", "packed"), [("gzip", PACKED), ("GZIP", PACKED), ("deflate", zlib.compress(ONE)), ("identity", ONE)]
)
async def test_a_packed_body_is_taken(running: RunningGateway, encoding: str, packed: bytes) -> None:
    assert_taken(await post(running, packed, JSON | {"Content-Encoding": encoding}), 1)


async def test_packed_lines_are_taken(running: RunningGateway) -> None:
    body = gzip.compress(b'{"value":1}\n{"value":2}\n')
    assert_taken(await post(running, body, NDJSON | {"Content-Encoding": "gzip"}), 2)


async def test_a_body_as_large_as_may_be_is_taken_and_one_byte_more_is_not(running: RunningGateway) -> None:
    assert_taken(await post(running, ONE + b" " * (MIB - len(ONE))), 1)
    assert_problem(await post(running, ONE + b" " * (MIB - len(ONE) + 1)), 413, "too_large")


# What is not


DEEP = b"[" * 100_000 + b"]" * 100_000
REFUSED_BODIES: dict[str, tuple[bytes, dict[str, str], int, str | None]] = {
    "empty": (b"", JSON, 400, None),
    "only space": (b" \n", JSON, 400, None),
    "broken": (b'{"value":1', JSON, 400, None),
    "a broken array": (b'[{"value":1},', JSON, 400, None),
    "a broken array behind a bad reading": (b'[{"value":1e999},{"value":1}', JSON, 400, None),
    "more behind a bad reading": (b'{"value":1e999} x', JSON, 400, None),
    "lines as JSON": (b'{"value":1}\n{"value":2}', JSON, 400, None),
    "a trailing comma": (b'[{"value":1},]', JSON, 400, None),
    "NaN": (b'{"value":NaN}', JSON, 400, None),
    "NaN in an array": (b'[{"value":1},{"value":NaN}]', JSON, 400, None),
    "Infinity": (b'{"value":-Infinity}', JSON, 400, None),
    "a byte order mark": (b'\xef\xbb\xbf{"value":1}', JSON, 400, None),
    "invalid UTF-8": (b'{"value":"\xff"}', JSON, 400, None),
    "invalid UTF-8 in an array": (b'[{"value":1},{"value":"\xff"}]', JSON, 400, None),
    "invalid UTF-8 in a key": (b'{"\xff":1}', JSON, 400, None),
    "half a surrogate pair": (b'{"value":"\\ud800"}', JSON, 400, None),
    "UTF-16": ('{"value":1}'.encode("utf-16"), JSON, 400, None),
    "deep arrays": (DEEP, JSON, 400, None),
    "deep objects": (b'{"value":' * 20_000 + b"1" + b"}" * 20_000, JSON, 400, None),
    "a deep value": (b'{"value":' + DEEP + b"}", JSON, 400, None),
    "corrupt gzip": (PACKED[:12] + b"corrupt", GZIP, 400, None),
    "cut gzip": (PACKED[:-1], GZIP, 400, None),
    "no gzip": (ONE, GZIP, 400, None),
    "text": (b'"value"', JSON, 422, "invalid_reading"),
    "a number": (b"7", JSON, 422, "invalid_reading"),
    "a number beyond all": (b"1e999", JSON, 422, "invalid_reading"),
    "null": (b"null", JSON, 422, "invalid_reading"),
    "an empty array": (b"[]", JSON, 422, "batch_size"),
    "1,001 readings": (b"[" + b",".join([ONE] * 1001) + b"]", JSON, 422, "batch_size"),
    "1,001 bad readings": (b"[" + b",".join([b"null"] * 1001) + b"]", JSON, 422, "batch_size"),
    "no lines": (b"", NDJSON, 422, "batch_size"),
    "blank lines": (b"\n\r\n \n", NDJSON, 422, "batch_size"),
    "1,001 lines": (b"\n".join([ONE] * 1001), NDJSON, 422, "batch_size"),
    "1,001 broken lines": (b"{\n" * 1001, NDJSON, 422, "batch_size"),
    "half a million lines": (b"1\n" * 500_000, NDJSON, 422, "batch_size"),
    "text/plain": (ONE, {"Content-Type": "text/plain"}, 415, None),
    "no type": (ONE, {"Content-Type": ""}, 415, None),
    "another charset": (ONE, {"Content-Type": "application/json; charset=latin-1"}, 415, None),
    "another charset of lines": (ONE, {"Content-Type": "application/x-ndjson; charset=utf-16"}, 415, None),
    "another packing": (ONE, JSON | {"Content-Encoding": "br"}, 415, None),
    "a gzip bomb": (gzip.compress(b" " * 50_000_000), GZIP, 413, "too_large"),
    "a gzip bomb of lines": (gzip.compress(ONE + b"\n" * 50_000_000), NDJSON | GZIP, 413, "too_large"),
    "too large": (b'{"value":"' + b"x" * MIB + b'"}', JSON, 413, "too_large"),
}


@pytest.mark.parametrize(("body", "headers", "status", "code"), REFUSED_BODIES.values(), ids=REFUSED_BODIES)
async def test_a_body_that_is_not_taken_is_refused_and_the_next_one_is_taken(
    stalled: RunningGateway,
    fake_broker: FakeBroker,
    body: bytes,
    headers: dict[str, str],
    status: int,
    code: str | None,
) -> None:
    fake_broker.outgoing.auto_confirm = True
    answer = await post(stalled, body, headers)
    assert_problem(answer, status, code)
    if status in (400, 422):  # the body is at fault
        expected = [{"field": "", "code": code or "invalid", "message": answer.json["detail"]}]
        assert answer.json["errors"] == expected
    assert fake_broker.outgoing.messages == []
    assert_taken(await post(stalled, ONE), 1)


async def test_a_body_of_unknown_length_is_bounded_all_the_same(running: RunningGateway) -> None:
    async def parts(count: int) -> AsyncIterator[bytes]:
        yield ONE
        for _ in range(count):
            yield b" " * 65536

    assert_taken(await post(running, parts(3)), 1)
    assert_problem(await post(running, parts(17)), 413, "too_large")


async def test_a_body_that_does_not_come_is_408(stalled: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.1)
    arrived = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b'{"value":'
        await arrived.wait()

    assert_problem(await post(stalled, parts()), 408)
    arrived.set()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_another_method_is_405_and_names_the_one_that_serves(stalled: RunningGateway, method: str) -> None:
    async with stalled.http.request(method, f"{stalled.url}/readings", headers=bearer()) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


# Who may send


def past() -> int:
    return int(time.time()) - 1


RETIRED = Issuer("retired")
NOT_ADMITTED: dict[str, tuple[Callable[[], dict[str, str]], int, str]] = {
    "no token": (lambda: {"Authorization": ""}, 401, "unauthorized"),
    "no JWT": (lambda: bearer("abc"), 401, "unauthorized"),
    "another scheme": (lambda: {"Authorization": f"Basic {ISSUING.device()}"}, 401, "unauthorized"),
    "a key of the same name": (lambda: bearer(Issuer(ISSUING.kid).device()), 401, "unauthorized"),
    "another audience": (lambda: bearer(ISSUING.device(aud="another")), 401, "unauthorized"),
    "expired": (lambda: bearer(ISSUING.device(iat=past() - 60, exp=past())), 401, "expired"),
    "revoked": (lambda: bearer(ISSUING.device(jti="gone")), 401, "revoked"),
    "of a retired key": (lambda: bearer(RETIRED.device()), 401, "revoked"),
    "of the future": (lambda: bearer(ISSUING.device(iat=past() + 86400, exp=past() + 90000)), 503, "unavailable"),
    "no scope": (lambda: bearer(ISSUING.device(scope="readings:read")), 403, "forbidden"),
    "another device": (lambda: bearer() | {"X-Device-Id": "device-2"}, 403, "forbidden"),
    "a user without device": (lambda: bearer(ISSUING.user()), 422, "device_required"),
    "an API key for others": (
        lambda: bearer(ISSUING.api_key(devices=["device-2"])) | {"X-Device-Id": "device-1"},
        403,
        "forbidden",
    ),
    "an API key without device": (lambda: bearer(ISSUING.api_key(devices=["device-2"])), 422, "device_required"),
    "a user with an odd device": (lambda: bearer(ISSUING.user()) | {"X-Device-Id": "a/b"}, 422, "device_required"),
}


class Listed:
    """The issuer's list of tokens that were revoked."""

    def __init__(self, *jtis: str) -> None:
        self.jtis = list(jtis)

    def revocations(self, every_s: float = 60) -> RevocationList:
        return RevocationList(self._fetch, every_s=every_s)

    async def _fetch(self, _: str | None) -> bytes:
        until = int(time.time() + 3600) * 1000
        items = [{"kind": "jti", "id": jti, "until": until} for jti in self.jtis]
        items.append({"kind": "kid", "id": RETIRED.kid, "until": until})
        return json.dumps({"items": items, "cursor": "0"}).encode()


async def two_keys() -> dict[str, Any]:
    return {"keys": [ISSUING.jwk(), RETIRED.jwk()]}


@pytest.mark.parametrize(("headers", "status", "code"), NOT_ADMITTED.values(), ids=NOT_ADMITTED)
async def test_a_refused_client_gets_the_reason_and_keeps_its_connection(
    fake_broker: FakeBroker, headers: Callable[[], dict[str, str]], status: int, code: str
) -> None:
    fake_broker.outgoing.auto_confirm = True
    connector = aiohttp.TCPConnector(limit=1)
    async with (
        gateway(
            fake_broker, revocations=Listed("gone").revocations(), keys=KeySet(two_keys), max_connections_per_device=1
        ) as found,
        aiohttp.ClientSession(connector=connector) as found.http,
    ):
        assert_problem(await post(found, b" " * 20_000, JSON | headers()), status, code)
        (connection,) = connector._conns.values()  # it is kept, and serves again
        kept = connection[0][0]
        assert_taken(await post(found, ONE), 1)
        assert [one[0] for one in next(iter(connector._conns.values()))] == [kept]
        assert refusals(found, code) == 1


def twice(name: str) -> dict[str, list[tuple[str, str]]]:
    """Credential headers, one of them repeated: with the same value, and with another."""
    user, other = f"Bearer {ISSUING.user()}", f"Bearer {ISSUING.user(sub='user-2', owner='user-2')}"
    usual = {"Authorization": user, "X-Device-Id": "kitchen:1"}
    another = {"Authorization": other, "X-Device-Id": "cellar:1"}[name]
    return {
        "the same": [*usual.items(), (name, usual[name])],
        "another": [*usual.items(), (name, another)],
        "an empty one": [*usual.items(), (name, "")],
        "an empty one first": [(name, ""), *usual.items()],
    }


@pytest.mark.parametrize("which", ["the same", "another", "an empty one", "an empty one first"])
@pytest.mark.parametrize("name", ["Authorization", "X-Device-Id"])
async def test_repeated_credential_headers_are_refused(
    stalled: RunningGateway, fake_broker: FakeBroker, name: str, which: str
) -> None:
    fake_broker.outgoing.auto_confirm = True
    headers = CIMultiDict([*twice(name)[which], ("Content-Type", "application/json")])
    body = json.dumps(reading(1, sensorType="a"))
    async with stalled.http.post(f"{stalled.url}/readings", data=body, headers=headers) as found:
        answer = Answer(found.status, found.headers, await found.read())
    assert_problem(answer, 401, "unauthorized")
    assert fake_broker.outgoing.messages == []
    assert refusals(stalled, "unauthorized") == 1


@pytest.mark.parametrize("which", ["the same", "another", "an empty one", "an empty one first"])
@pytest.mark.parametrize("name", ["Authorization", "X-Device-Id"])
async def test_an_upgrade_with_repeated_credential_headers_gets_no_session(
    stalled: RunningGateway, name: str, which: str
) -> None:
    url = f"{stalled.url}/socket.io/?EIO=4&transport=websocket"
    async with stalled.http.ws_connect(url, headers=CIMultiDict(twice(name)[which])) as socket:
        assert (await socket.receive_str(timeout=5)).startswith("0{")
        await socket.send_str("40")
        code, texts = await closed(socket)
    assert (code, [json.loads(text[2:])["data"] for text in texts]) == (1008, [{"code": "unauthorized"}])
    assert stalled.count("connections") == 0


def refusals(running: RunningGateway, code: str) -> float:
    return running.registry.get_sample_value("tidegate_gateway_connects_total", {"outcome": code}) or 0.0


@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_a_token_in_the_address_is_not_taken(stalled: RunningGateway, name: str) -> None:
    query = f"?{name}={ISSUING.device()}"
    assert_problem(await post(stalled, ONE, query=query), 401, "unauthorized")
    assert_problem(await post(stalled, ONE, JSON | {"Authorization": ""}, query=query), 401, "unauthorized")


async def test_without_keys_a_device_is_asked_to_retry(fake_broker: FakeBroker) -> None:
    async def away() -> dict[str, Any]:
        raise OSError("auth is down")

    async with gateway(fake_broker, keys=KeySet(away)) as found:
        assert_problem(await post(found, ONE), 503, "unavailable")


# Bodies in parts


class Slow:
    """A request of which a part was sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def begun(
        cls, running: RunningGateway, part: bytes, length: int | None, more: str = "", token: str | None = None
    ) -> "Slow":
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
        slow = cls(reader, writer)
        await slow.send(part, length, more, token)
        return slow

    async def send(self, part: bytes, length: int | None, more: str = "", token: str | None = None) -> None:
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        head = f"POST /readings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n{more}"
        head += "".join(f"{name}: {value}\r\n" for name, value in bearer(token).items())
        self.writer.write(head.encode() + b"\r\n" + part)
        await self.writer.drain()

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            return Answer(
                int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["Content-Length"]))
            )

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def busy_for_another(running: RunningGateway, body: bytes = ONE) -> None:
    """Wait until another's request takes the place: the gateway has read the head of the one that was begun."""

    async def refused() -> bool:
        answer = await post(running, body, token=ISSUING.device(sub="other", device="other"))
        if answer.status != 202:
            assert_problem(answer, 503, "busy")
        return answer.status != 202

    await eventually(refused, "what was begun holds its place")


async def free_for_all(running: RunningGateway, body: bytes = ONE) -> None:
    """Wait until nothing is held, of the device's own connection neither."""

    async def taken() -> bool:
        return (await post(running, body)).status == 202

    await eventually(taken, "the place is free again")


@pytest.mark.parametrize(
    ("length", "more"),
    [(1000, ""), (None, ""), (900, "Content-Encoding: gzip\r\n")],
    ids=["by its length", "of unknown length", "packed"],
)
async def test_a_body_is_reserved_from_its_head_to_its_end(
    fake_broker: FakeBroker, length: int | None, more: str
) -> None:
    """A packed one, or one of unknown length, that of the largest."""
    fake_broker.outgoing.auto_confirm = True
    bounds: dict[str, Any] = {"max_event_bytes": 1000, "max_waiting_bytes": 1005, "max_connections_per_device": 1}
    async with gateway(fake_broker, **bounds) as found:
        slow = await Slow.begun(found, b"", length, more)
        await busy_for_another(found)
        await slow.close()
        await free_for_all(found)
        assert found.count("waiting_bytes") == 0


async def test_a_body_that_was_read_reserves_no_more_than_its_size(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, max_event_bytes=1000, max_waiting_bytes=1100) as found:
        packed = asyncio.ensure_future(post(found, PACKED, GZIP))
        await fake_broker.outgoing.wait_published(1)
        other = asyncio.ensure_future(post(found, PACKED, GZIP, token=ISSUING.device(sub="b", device="b")))
        assert_problem(await post(found, b"1" * 1001), 413, "too_large")
        fake_broker.outgoing.confirm_all()
        assert_taken(await packed, 1)
        assert_taken(await other, 1)


async def test_one_device_reserves_no_more_than_its_limit(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker, max_in_flight_bytes=1500) as found:
        slow = [await Slow.begun(found, b"", 1000)]

        async def refused() -> bool:
            answer = await post(found, b" " * 501 + ONE)
            if answer.status != 202:
                assert_problem(answer, 503, "busy")
            return answer.status != 202

        await eventually(refused, "the device has all it may")
        assert_taken(await post(found, b" " * 489 + ONE), 1)
        assert_taken(await post(found, b" " * 5000 + ONE, token=ISSUING.device(sub="b", device="b")), 1)
        slow[0].writer.write(ONE + b" " * 989)
        assert_taken(await slow[0].answer(), 1)
        assert_taken(await post(found, b" " * 5000 + ONE), 1)
        await slow[0].close()


async def test_a_token_that_is_revoked_while_its_body_comes_is_not_taken(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    listed = Listed()
    async with gateway(fake_broker, revocations=listed.revocations(0.02), max_in_flight_bytes=len(ONE)) as found:
        slow = await Slow.begun(found, ONE[:-1], len(ONE), token=ISSUING.device(jti="gone"))
        await device_is_busy(found)
        listed.jtis.append("gone")

        async def known() -> bool:
            return (await post(found, ONE, token=ISSUING.device(jti="gone"))).status == 401

        await eventually(known, "the revocation is known")
        slow.writer.write(ONE[-1:])
        assert_problem(await slow.answer(), 401, "revoked")
        await slow.close()
    assert not any(document["value"] == 2 for document in documents(fake_broker))


async def device_is_busy(running: RunningGateway) -> None:
    async def busy() -> bool:
        return (await post(running, ONE)).status == 503

    await eventually(busy, "what was begun has been seen")


async def test_a_token_that_expires_while_its_body_comes_is_not_taken(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, max_in_flight_bytes=len(ONE)) as found:
        expires_at = int(time.time()) + 2
        slow = await Slow.begun(found, ONE[:-1], len(ONE), token=ISSUING.device(exp=expires_at))
        fake_broker.outgoing.auto_confirm = True
        await device_is_busy(found)

        async def over() -> bool:
            return time.time() > expires_at

        await eventually(over, "the token has expired")
        slow.writer.write(ONE[-1:])
        assert_problem(await slow.answer(), 401, "expired")
        await slow.close()


# Who goes away


async def test_a_client_that_disconnects_in_the_middle_of_its_body_leaves_nothing_behind(
    fake_broker: FakeBroker,
) -> None:
    fake_broker.outgoing.auto_confirm = True
    bounds: dict[str, Any] = {"max_event_bytes": 1000, "max_waiting_bytes": 1005, "max_connections_per_device": 1}
    async with gateway(fake_broker, **bounds) as found:
        with capture_logs() as logs:
            for length in (1000, None):
                slow = await Slow.begun(found, b'{"value":' if length else b'9\r\n{"value":\r\n', length)
                await busy_for_another(found)
                await slow.close()
                await free_for_all(found)
        assert logs == []  # a client that disconnects is no internal error


async def test_a_client_that_disconnects_before_the_confirm_leaves_only_its_reading(
    fake_broker: FakeBroker,
) -> None:
    bounds: dict[str, Any] = {"max_event_bytes": 1000, "max_waiting_bytes": 1005, "max_connections_per_device": 1}
    async with gateway(fake_broker, **bounds) as found:
        slow = await Slow.begun(found, ONE + b" " * 989, 1000)
        await fake_broker.outgoing.wait_published(1)
        await slow.close()
        with capture_logs() as logs:
            fake_broker.outgoing.confirm_all()
            await free_for_all(found, ONE + b" " * 989)
        assert found.count("waiting_bytes") == 0
        assert readings(found, "accepted") == len(fake_broker.outgoing.messages)
        assert logs == []


def readings(running: RunningGateway, answer: str) -> float:
    return running.registry.get_sample_value("tidegate_gateway_readings_total", {"answer": answer}) or 0.0


# When there is no room


async def test_a_reading_is_answered_after_its_confirm_and_not_before(
    stalled: RunningGateway, fake_broker: FakeBroker
) -> None:
    for number, (body, accepted) in enumerate(((reading(1), 1), ([reading(1), reading(2)], 2))):
        call = asyncio.ensure_future(post(stalled, body))
        await fake_broker.outgoing.wait_published(number + 1)
        # Another's answer overtakes: the gateway works, only the answer waits.
        assert_taken(await post(stalled, {}), 0, [(0, "invalid_value")])
        assert not call.done()
        fake_broker.outgoing.confirm(number)
        assert_taken(await call, accepted)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (QueueFull("full"), "busy"),
        (BrokerUnavailable("away"), "unavailable"),
        (ConfirmLate("late"), "unavailable"),
        (Unroutable("unbound"), "unavailable"),
    ],
)
async def test_a_failed_publish_promises_nothing_and_the_next_one_is_taken(
    stalled: RunningGateway, fake_broker: FakeBroker, failure: Exception, code: str
) -> None:
    fake_broker.outgoing.failure = failure
    for body in (reading(1), [reading(1), reading(None)]):
        assert_problem(await post(stalled, body), 503, code)
    fake_broker.outgoing.failure = None
    late = asyncio.ensure_future(post(stalled, reading(1)))
    await fake_broker.outgoing.wait_published(3)
    fake_broker.outgoing.fail(2, failure)
    assert_problem(await late, 503, code)
    assert (readings(stalled, "accepted"), readings(stalled, "retry")) == (0, 3)
    fake_broker.outgoing.auto_confirm = True
    assert_taken(await post(stalled, reading(1)), 1)


async def test_a_full_queue_is_busy(tmp_path: Path) -> None:
    small = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=1000, dead_letter_queue=DEAD_LETTERS)
    async with EmbeddedBroker.open_at(tmp_path / "queue.db", (DEAD_LETTERS, small)) as broker, gateway(broker) as found:
        answers = [await post(found, reading(number)) for number in range(20)]
        taken = [answer for answer in answers if answer.status == 202]
        assert 0 < len(taken) < 10
        for answer in answers[len(taken) :]:
            assert_problem(answer, 503, "busy")
        assert await broker.depth(small) == len(taken)


async def test_beyond_what_may_wait_for_its_confirm_the_gateway_is_busy(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, max_waiting_bytes=1000) as found:
        first = asyncio.ensure_future(post(found, reading(1)))
        await fake_broker.outgoing.wait_published(1)
        # Their bodies would have room, their documents have not.
        assert_problem(await post(found, [{"value": 1}] * 10), 503, "busy")
        fake_broker.outgoing.confirm_all()
        assert_taken(await first, 1)


LIMITS: list[tuple[dict[str, Any], str, int]] = [
    ({"device_readings_per_second": 3}, "device", 3),
    ({"owner_readings_per_second": 3}, "owner", 3),
    ({"device_readings_per_minute": 3}, "device", 3),
    ({"device_bytes_per_second": 100}, "device", 100),
    ({"owner_bytes_per_minute": 100}, "owner", 100),
]


@pytest.mark.parametrize(("bound", "scope", "limit"), LIMITS, ids=[next(iter(row[0])) for row in LIMITS])
async def test_beyond_the_rate_the_answer_says_when_to_retry(
    fake_broker: FakeBroker, bound: dict[str, Any], scope: str, limit: int
) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker, **bound) as found:
        answers = [await post(found, [reading(number)]) for number in range(20)]
        assert_taken(answers[0], 1)
        limited = [answer for answer in answers if answer.status != 202]
        assert limited
        for answer in limited:
            assert_problem(answer, 429, "rate_limited")
            assert (answer.json["limit"], answer.json["scope"]) == (limit, scope)
        assert len(fake_broker.outgoing.messages) == len(answers) - len(limited)


async def test_bodies_that_are_no_json_count_against_the_rate(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, device_readings_per_minute=10) as found:
        answers = [await post(found, b"{") for _ in range(10)]
        assert [answer.status for answer in answers] == [400] * 10
        assert_problem(await post(found, ONE), 429, "rate_limited")


async def test_each_request_counts_as_a_connection_while_it_lasts(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, max_connections_per_device=1) as found:
        first = asyncio.ensure_future(post(found, ONE))
        await fake_broker.outgoing.wait_published(1)
        answer = await post(found, ONE)
        assert_problem(answer, 429, "rate_limited")
        assert (answer.json["limit"], answer.json["scope"]) == (1, "device")
        fake_broker.outgoing.confirm_all()
        assert_taken(await first, 1)
        assert_taken(await post(found, ONE), 1)


async def test_a_draining_gateway_accepts_nothing_new_and_answers_what_it_accepted(fake_broker: FakeBroker) -> None:
    begun: asyncio.Future[RunningGateway] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    async def until_stopped() -> None:
        async with gateway(fake_broker) as found:
            begun.set_result(found)
            await stop.wait()

    ending = asyncio.ensure_future(until_stopped())
    found = await begun
    waiting, idle, slow = [await Slow.begun(found, b"", 0) for _ in range(2)] + [await Slow.begun(found, b"{", 2)]
    for connection in (waiting, idle):  # open, and served once
        assert_problem(await connection.answer(), 400)
    await waiting.send(ONE, len(ONE))
    await fake_broker.outgoing.wait_published(1)
    stop.set()

    async def closed() -> bool:
        try:
            (await asyncio.open_connection("127.0.0.1", int(found.url.rpartition(":")[2])))[1].close()
        except OSError:
            return True
        return False

    await eventually(closed, "no client can connect any more")
    await idle.send(ONE, len(ONE))
    assert_problem(await idle.answer(), 503, "unavailable")
    slow.writer.write(b"}")
    assert_problem(await slow.answer(), 503, "unavailable")
    fake_broker.outgoing.confirm_all()
    assert_taken(await waiting.answer(), 1)
    await ending
    assert len(fake_broker.outgoing.messages) == 1
    for connection in (waiting, idle, slow):
        await connection.close()


# The same as over a socket

loose = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), json_texts, st.lists(st.integers(), max_size=2)
)
items = st.one_of(
    good_readings, good_readings, near_readings, loose, st.fixed_dictionaries({"value": st.integers() | json_texts})
)
payloads = st.one_of(items, st.lists(items, max_size=6))
packet_ids = itertools.count()


@pytest.mark.parametrize("fast_lane", [True, False], ids=["fast path", "plain path"])
async def test_the_same_payload_is_acknowledged_and_stored_alike_over_a_socket_and_over_http(
    fake_broker: FakeBroker, fast_lane: bool
) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker, fast_lane=fast_lane) as found, found.raw() as socket:
        await socket.receive_str(timeout=5)
        await compare_with(found, socket, fake_broker)


async def compare_with(found: RunningGateway, socket: aiohttp.ClientWebSocketResponse, fake_broker: FakeBroker) -> None:
    """Hypothesis calls from a thread of its own; what it calls runs here."""
    loop = asyncio.get_running_loop()

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(payloads)
    @example([])
    @example(7)
    @example([{"value": 1}] * 1001)
    @example([{"value": 1}, {"value": 2**63}, None])
    def alike(payload: Any) -> None:
        try:
            json.dumps(payload, allow_nan=False)
        except ValueError:  # infinity is no JSON: over HTTP, none of the body is
            reject()
        asyncio.run_coroutine_threadsafe(compare(found, socket, fake_broker, payload), loop).result(30)

    await asyncio.to_thread(alike)


async def compare(
    found: RunningGateway, socket: aiohttp.ClientWebSocketResponse, fake_broker: FakeBroker, payload: Any
) -> None:
    text = json.dumps(payload)
    event = "readings" if isinstance(payload, list) else "reading"
    fake_broker.outgoing.messages.clear()
    # An id of its own: the answer to one that was given up for being late is not taken for this one's.
    packet_id = next(packet_ids)
    await socket.send_str(f'42{packet_id}["{event}",{text}]')
    while not (answered := await socket.receive_str(timeout=20)).startswith(f"43{packet_id}["):
        pass
    (acknowledged,) = json.loads(answered.removeprefix(f"43{packet_id}"))
    over_socket = comparable(fake_broker)
    fake_broker.outgoing.messages.clear()
    answer = await post(found, text.encode())
    assert comparable(fake_broker) == over_socket
    assert answer.status in (202, 422)
    if answer.status == 422:
        assert acknowledged["status"] == "rejected"
        assert answer.json["code"] == acknowledged["code"] in ("invalid_reading", "batch_size")
    elif acknowledged["status"] == "rejected":
        rejected = [{"index": 0, "code": acknowledged["code"], "detail": acknowledged["detail"]}]
        assert answer.json == {"accepted": 0, "rejected": rejected}
    else:
        assert answer.json == {"accepted": acknowledged["accepted"], "rejected": acknowledged.get("rejected", [])}
    # A line each, where a line can be one.
    if isinstance(payload, list) and answer.status == 202:
        fake_broker.outgoing.messages.clear()
        lines = await post(found, "\n".join(map(json.dumps, payload)).encode(), NDJSON)
        assert (lines.json, comparable(fake_broker)) == (answer.json, over_socket)


def comparable(fake_broker: FakeBroker) -> list[dict[str, Any]]:
    """The published documents, without what depends on when they came, or was drawn."""
    found = documents(fake_broker)
    for document in found:
        del document["receivedAt"]
        if document["_id"]["seq"] >= GENERATED_SEQ_START:
            del document["_id"]["seq"], document["_id"]["ts"]
    return found


# What the reader gives out

EXPORTED = {
    "device": "device-1",
    "sensorType": "temperature",
    "ts": "2025-06-15T15:06:40.000Z",
    "seq": GENERATED_SEQ_START + 7,
    "value": 1.5,
    "receivedAt": "2025-06-15T15:06:40.250Z",
}


async def test_lines_of_an_export_are_taken_with_the_identity_that_they_have(
    running: RunningGateway, embedded: EmbeddedBroker
) -> None:
    before = time.time_ns() // 1_000_000
    lines = [EXPORTED, EXPORTED | {"seq": 3, "unit": "C", "location": "hall"}]
    assert_taken(await post(running, "\n".join(map(json.dumps, lines)).encode(), NDJSON), 2)
    assert_taken(await post(running, EXPORTED), 1)
    first, second, again = await stored(embedded, 3)
    assert first["_id"] == again["_id"]
    assert (int(first["_id"]["ts"]), first["_id"]["seq"], second["_id"]["seq"]) == (TS, GENERATED_SEQ_START + 7, 3)
    assert int(first["receivedAt"]) >= before
    # The token's location is for what the device measures now.
    assert [document.get("location") for document in (first, second)] == [None, "hall"]


async def test_a_reading_of_another_device_is_rejected_alone(running: RunningGateway, embedded: EmbeddedBroker) -> None:
    batch = [EXPORTED, EXPORTED | {"device": "device-2"}, EXPORTED | {"receivedAt": "now"}, reading(2)]
    assert_taken(await post(running, batch), 2, [(1, "forbidden"), (2, "invalid_field")])
    assert_taken(await post(running, EXPORTED | {"device": "device-2"}), 0, [(0, "forbidden")])
    headers = JSON | {"X-Device-Id": "device-2"}
    assert_taken(await post(running, EXPORTED | {"device": "device-2"}, headers, token=ISSUING.user()), 1)
    assert [document["_id"]["device"] for document in await stored(embedded, 3)] == [
        *("device-1", "device-1", "device-2")
    ]


async def test_a_gateways_seq_is_taken_of_an_exported_reading_alone(running: RunningGateway) -> None:
    without = {name: value for name, value in EXPORTED.items() if name != "receivedAt"}
    last = EXPORTED | {"seq": 2 * GENERATED_SEQ_START - 1}
    assert_taken(await post(running, [EXPORTED, without, last]), 2, [(1, "invalid_field")])


async def test_a_socket_does_not_take_what_only_http_takes(running: RunningGateway) -> None:
    async with running.connected({"token": ISSUING.device()}) as device:
        answer = await device.call("readings", [EXPORTED, reading(1)], timeout=5)
    assert [(item["index"], item["code"]) for item in answer["rejected"]] == [(0, "invalid_field")]


# The description


def test_the_description_has_the_fields_that_a_reading_has() -> None:
    def fields(struct: Any) -> dict[str, bool]:
        return {field.encode_name: field.required for field in msgspec.structs.fields(struct)}

    assert fields(ReadingSent) == fields(ExportedReading)


@given(good_readings)
def test_what_is_accepted_is_as_described(sent: dict[str, Any]) -> None:
    msgspec.convert(sent, ReadingSent)


@pytest.mark.parametrize(
    "fields",
    [
        {"value": None},
        {"value": "x" * 257},
        {"sensorType": ""},
        {"sensorType": "a/b"},
        {"sensorType": "x" * 65},
        {"ts": 1.5},
        {"seq": -1},
        {"seq": 2**53},
        {"unit": "x" * 33},
        {"location": "x" * 257},
        {"value": "a\0"},
        {"unit": "a\n"},
        {"location": "\x7f"},
        {"tags": {"a": "\x9f"}},
        {"location": {"lat": 1}},
        {"tags": {str(number): "" for number in range(17)}},
        {"tags": {"a b": ""}},
        {"tags": {"a": "x" * 257}},
        {"quality": "great"},
        {"quality": 1},
        {"owner": "x"},
    ],
    ids=str,
)
async def test_what_the_description_refuses_the_gateway_refuses(
    stalled: RunningGateway, fields: dict[str, Any]
) -> None:
    sent = reading(1) | fields
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(sent, ReadingSent)
    answer = await post(stalled, sent)
    assert (answer.status, answer.json["accepted"]) == (202, 0)
