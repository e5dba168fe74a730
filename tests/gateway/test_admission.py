"""Which clients may connect on a real port, and with which code others are refused."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from access.tokens import KeySet
from broker.embedded.broker import EmbeddedBroker
from testing.issuer import Issuer
from testing.waiting import eventually
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ACCEPTED, ISSUING, TS, UPGRADE, RunningGateway, closed, gateway, reading, stored


async def test_a_device_connects_with_auth_and_its_readings_carry_owner_and_device(
    running: RunningGateway, embedded: EmbeddedBroker
) -> None:
    async with running.connected({"token": ISSUING.device()}) as client:
        before = time.time_ns() // 1_000_000
        assert await client.call("reading", reading(21.5, seq=3, unit="°C"), timeout=5) == ACCEPTED
    (document,) = await stored(embedded, 1)
    assert {name: int(part) if name in ("ts", "seq") else part for name, part in document["_id"].items()} == {
        "owner": "user-1",
        "device": "device-1",
        "sensorType": "temperature",
        "ts": TS,
        "seq": 3,
    }
    assert before <= int(document["receivedAt"]) <= time.time_ns() // 1_000_000
    assert (document["value"], document["unit"], document["location"]) == (21.5, "°C", "roof")


async def test_a_user_connects_with_headers_as_a_device_of_its_choice(
    running: RunningGateway, embedded: EmbeddedBroker
) -> None:
    headers = {"Authorization": f"Bearer {ISSUING.user()}", "X-Device-Id": "kitchen:1"}
    async with running.connected(headers=headers) as client:
        assert await client.call("reading", reading(1, sensorType="a"), timeout=5) == ACCEPTED
    (document,) = await stored(embedded, 1)
    assert (document["_id"]["owner"], document["_id"]["device"]) == ("user-1", "kitchen:1")


async def test_auth_and_headers_that_agree_are_taken(running: RunningGateway) -> None:
    token = ISSUING.user()
    headers = {"Authorization": f"Bearer {token}", "X-Device-Id": "d"}
    async with running.connected({"token": token, "device": "d"}, headers=headers) as client:
        assert client.connected
    async with running.connected({"device": "d"}, headers={"Authorization": f"bearer {token}"}) as client:
        assert client.connected


def in_headers(token: str, device: str | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} | ({} if device is None else {"X-Device-Id": device})
    return {"headers": headers}


def past() -> int:
    return int(time.time()) - 1


REFUSALS: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
    ("no token", "unauthorized", dict),
    ("empty auth", "unauthorized", lambda: {"auth": {"device": "d"}}),
    ("auth of another form", "unauthorized", lambda: {"auth": [ISSUING.device()]}),
    ("no text as token", "unauthorized", lambda: {"auth": {"token": 7}}),
    ("no JWT", "unauthorized", lambda: {"auth": {"token": "abc"}}),
    ("another scheme", "unauthorized", lambda: {"headers": {"Authorization": f"Basic {ISSUING.device()}"}}),
    ("expired", "expired", lambda: {"auth": {"token": ISSUING.device(iat=past() - 60, exp=past())}}),
    ("expired in the header", "expired", lambda: in_headers(ISSUING.device(iat=past() - 60, exp=past()))),
    ("another key", "unauthorized", lambda: {"auth": {"token": Issuer(ISSUING.kid).device()}}),
    ("unknown key", "unauthorized", lambda: {"auth": {"token": Issuer("other").device()}}),
    ("another audience", "unauthorized", lambda: {"auth": {"token": ISSUING.device(aud="another")}}),
    ("another issuer", "unauthorized", lambda: {"auth": {"token": ISSUING.device(iss="https://evil.test")}}),
    ("user without device", "device_required", lambda: {"auth": {"token": ISSUING.user()}}),
    ("empty device", "device_required", lambda: {"auth": {"token": ISSUING.user(), "device": ""}}),
    ("long device", "device_required", lambda: {"auth": {"token": ISSUING.user(), "device": "d" * 65}}),
    ("odd device", "device_required", lambda: {"auth": {"token": ISSUING.user(), "device": "a/b"}}),
    ("device that is no text", "device_required", lambda: {"auth": {"token": ISSUING.user(), "device": {"$ne": 1}}}),
    ("device with a line end", "device_required", lambda: {"auth": {"token": ISSUING.user(), "device": "a\n"}}),
    ("another device", "forbidden", lambda: {"auth": {"token": ISSUING.device(), "device": "device-2"}}),
    ("another device in the header", "forbidden", lambda: in_headers(ISSUING.device(), "device-2")),
    ("an API key", "device_required", lambda: {"auth": {"token": ISSUING.api_key()}}),
    (
        "an API key for other devices",
        "forbidden",
        lambda: {"auth": {"token": ISSUING.api_key(devices=["device-2", "device-3"]), "device": "device-1"}},
    ),
    (
        "an API key for other devices in the header",
        "forbidden",
        lambda: in_headers(ISSUING.api_key(devices=["device-2"]), "device-1"),
    ),
    ("an API key that reads", "forbidden", lambda: in_headers(ISSUING.api_key(scope="readings:read"), "device-1")),
    ("no scope", "forbidden", lambda: {"auth": {"token": ISSUING.device(scope="readings:read")}}),
    ("part of a scope", "forbidden", lambda: {"auth": {"token": ISSUING.device(scope="readings:writer x")}}),
    (
        "two tokens",
        "unauthorized",
        lambda: {"auth": {"token": ISSUING.device()}} | in_headers(ISSUING.device(jti="other")),
    ),
    (
        "two devices",
        "forbidden",
        lambda: {"auth": {"token": (token := ISSUING.user()), "device": "a"}} | in_headers(token, "b"),
    ),
    (
        "token in the URL",
        "unauthorized",
        lambda: {"auth": {"token": (token := ISSUING.device())}, "query": f"?token={token}"},
    ),
    ("only in the URL", "unauthorized", lambda: {"query": f"?access_token={ISSUING.device()}"}),
]


@pytest.mark.parametrize(("code", "connect"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
async def test_a_refused_client_gets_the_reason(
    fake_broker: FakeBroker, code: str, connect: Callable[[], dict[str, Any]]
) -> None:
    async with gateway(fake_broker) as found:
        assert await found.refusal(**connect()) == {"code": code}
        assert found.count("connections") == 0


async def test_without_keys_a_device_is_asked_to_retry(fake_broker: FakeBroker) -> None:
    async def away() -> dict[str, Any]:
        raise OSError("auth is down")

    async with gateway(fake_broker, keys=KeySet(away)) as found:
        assert (await found.not_upgraded())["code"] == "unavailable"
        assert connects(found, "unavailable") == 1
        async with found.http.get(f"{found.url}/socket.io/?EIO=4&transport=polling") as answer:
            assert answer.status == 400, "what can never work is not asked to retry"


async def test_a_key_that_is_not_known_while_its_issuer_is_away_closes_the_socket_for_now(
    fake_broker: FakeBroker,
) -> None:
    up = True

    async def fetch() -> dict[str, Any]:
        if not up:
            raise OSError("auth is down")
        return ISSUING.jwks()

    keys = KeySet(fetch, at_most_every_s=0)
    async with gateway(fake_broker, keys=keys) as found:
        async with found.connected({"token": ISSUING.device()}):
            up = False
        assert await found.closed_for_now({"token": Issuer("other").device()}) == "unavailable"
        assert connects(found, "unavailable") == 1
        async with found.connected({"token": ISSUING.device()}) as client:
            assert client.connected


async def test_a_stopping_gateway_acknowledges_what_it_accepted_and_refuses_upgrades_for_now(
    fake_broker: FakeBroker,
) -> None:
    begun, stop = asyncio.Event(), asyncio.Event()
    port = 0

    async def serve() -> None:
        nonlocal port
        async with gateway(fake_broker) as found:
            port = int(found.url.rpartition(":")[2])
            begun.set()
            await stop.wait()

    serving = asyncio.ensure_future(serve())
    await begun.wait()
    async with aiohttp.ClientSession() as http:
        device = await http.ws_connect(f"http://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket")
        await device.receive_str(timeout=5)
        await device.send_str("40" + json.dumps({"token": ISSUING.device()}))
        await device.receive_str(timeout=5)
        await device.send_str('421["reading",{"value":1}]')
        await fake_broker.outgoing.wait_published(1)
        # A connection that is open already: a gateway that stops takes no new ones.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
        writer.write(request + b"\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert answer.startswith(b"HTTP/1.1 400")
        stop.set()
        await until_refused(port)
        writer.write(request + "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items()).encode() + b"\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b'"retryAfterMs"'), 5)
        assert b"HTTP/1.1 503" in answer
        assert b"Retry-After: 2" in answer
        fake_broker.outgoing.confirm_all()
        assert (await device.receive_str(timeout=5)).startswith("431")
        assert await closed(device) == (1001, [])
        writer.close()
    await serving


async def until_refused(port: int) -> None:
    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return True
        writer.close()
        return False

    await eventually(refused, "the port is closed")


def connects(running: RunningGateway, outcome: str) -> float:
    return running.registry.get_sample_value("tidegate_gateway_connects_total", {"outcome": outcome}) or 0.0


async def test_the_transport_closes_behind_a_refusal(stalled: RunningGateway) -> None:
    async with stalled.raw({"token": "abc"}) as socket:
        assert (await socket.receive_str(timeout=5)).startswith("44{")
        async with asyncio.timeout(3):
            while not socket.closed:
                await socket.receive()


async def test_a_session_ends_with_its_token(stalled: RunningGateway) -> None:
    said: list[Any] = []
    ended = asyncio.Event()
    async with stalled.connected({"token": ISSUING.device(exp=int(time.time()) + 2)}) as client:
        client.on("auth_expired", said.append)
        client.on("disconnect", lambda *_: ended.set())
        async with asyncio.timeout(6):
            await ended.wait()
    assert said == [{}]


async def test_connections_are_counted_up_and_down_also_when_connect_is_sent_twice(stalled: RunningGateway) -> None:
    async with stalled.raw() as socket:
        assert (await socket.receive_str(timeout=5)).startswith("40{")
        assert stalled.count("connections") == 1
        await socket.send_str("40" + json.dumps({"token": ISSUING.device()}))

    async def gone() -> bool:
        return stalled.count("connections") == 0

    await eventually(gone, "no connection is counted")
