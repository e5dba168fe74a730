"""Connection and rate limits as devices see them, over real sockets."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import aiohttp
import pytest

from gateway.limits.connections import IDLE_TTL_S, ConnectionLimits, TooManyConnections, TooManyDevices
from gateway.settings import GatewaySettings
from testing.waiting import eventually
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ACCEPTED, ISSUING, RunningGateway, gateway, reading

pytestmark = pytest.mark.usefixtures("path", "confirming")


def token(number: int, owner: str = "user-1") -> dict[str, str]:
    return {"token": ISSUING.device(sub=f"device-{number}", device=f"device-{number}", owner=owner)}


@pytest.mark.parametrize(
    ("setting", "scope"),
    [
        ("max_connections_per_device", "device"),
        ("max_connections_per_owner", "owner"),
        ("max_connections_per_address", "address"),
    ],
)
async def test_one_connection_too_many_is_refused_until_another_one_ends(
    fake_broker: FakeBroker, setting: str, scope: str
) -> None:
    chosen: dict[str, Any] = {setting: 2}
    async with gateway(fake_broker, **chosen) as running:
        async with running.connected(token(1)), running.connected(token(1)):
            await assert_refused_for_now(running, scope, 2)
            if scope == "device":
                async with running.connected(token(2)):
                    pass
            if scope != "address":
                async with running.connected(token(3, "user-2")):
                    pass
            else:  # sockets without a session count too
                async with running.http.post(f"{running.url}/readings", json=reading(1), headers=bearer(3)) as answer:
                    assert (answer.status, (await answer.json())["scope"]) == (429, "address")

        async def none_left() -> bool:
            return running.count("connections") == 0

        await eventually(none_left, "the slots are free")
        async with running.connected(token(1)), running.connected(token(1)):
            pass


async def test_addresses_are_distinguished_behind_a_trusted_proxy_only(fake_broker: FakeBroker) -> None:
    headers = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(2)]
    async with (
        gateway(fake_broker, max_connections_per_address=1, trusted_proxies=("127.0.0.0/8",)) as running,
        running.connected(token(1), headers=headers[0]),
        running.connected(token(2), headers=headers[1]),
    ):
        assert (await running.not_upgraded(headers[1]))["scope"] == "address"
    async with (
        gateway(fake_broker, max_connections_per_address=1) as running,
        running.connected(token(1), headers=headers[0]),
    ):
        assert (await running.not_upgraded(headers[1]))["scope"] == "address"


async def test_sockets_of_an_address_count_before_their_session_and_no_longer_than_they_are_open(
    fake_broker: FakeBroker,
) -> None:
    async with gateway(fake_broker, max_connections_per_address=2) as running:
        for _ in range(3):
            async with running.unconnected(), running.unconnected():
                await assert_refused_for_now(running, "address", 2)
            await eventually(partial(has_room, running), "there is room again")
            # Refused for good, refused for now, and no upgrade at all: each has released its slot.
            assert await running.refusal({"token": "x"}) == {"code": "unauthorized"}
            async with running.http.get(f"{running.url}/socket.io/?EIO=4&transport=websocket") as answer:
                assert answer.status == 400


async def has_room(running: RunningGateway) -> bool:
    try:
        async with running.unconnected():
            return True
    except aiohttp.WSServerHandshakeError:
        return False


def bearer(number: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(number)['token']}"}


async def assert_refused_for_now(running: RunningGateway, scope: str, limit: int) -> None:
    """Connect once more than allowed: the address is known before the upgrade, owner and device with the token."""
    if scope == "address":
        problem = await running.not_upgraded()
        assert (problem["code"], problem["limit"], problem["scope"]) == ("rate_limited", limit, scope)
    else:
        assert await running.closed_for_now(token(1)) == "rate_limited"
    labels = {"outcome": "rate_limited"}
    assert (running.registry.get_sample_value("tidegate_gateway_connects_total", labels) or 0) >= 1


async def limited(running: RunningGateway, client: Any, event: str, payload: Any) -> dict[str, Any]:
    """Send until the rate limit refuses; return the answer."""
    async with asyncio.timeout(5):
        while (answer := await client.call(event, payload, timeout=5))["status"] == "accepted":
            pass
    assert running.registry.get_sample_value("tidegate_gateway_limited_total", {"scope": answer["scope"]}) == 1
    return dict(answer)


async def test_readings_beyond_the_rate_are_retried_and_accepted_after_the_wait(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, device_readings_per_second=5) as running, running.connected(token(1)) as client:
        answer = await limited(running, client, "reading", reading(1))
        published = len(fake_broker.outgoing.messages)
        assert 0 < answer.pop("retryAfterMs") <= 200
        assert answer == {"status": "retry", "code": "rate_limited", "limit": 5, "scope": "device"}
        assert published >= 5
        await asyncio.sleep(0.25)
        assert await client.call("reading", reading(1), timeout=5) == ACCEPTED
        async with running.connected(token(2)) as other:
            assert await other.call("reading", reading(1), timeout=5) == ACCEPTED


async def test_reconnecting_does_not_reset_the_quota(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, device_readings_per_second=5, device_readings_per_minute=5) as running:
        async with running.connected(token(1)) as client:
            await limited(running, client, "reading", reading(1))
        async with running.connected(token(1)) as client:
            answer = await client.call("reading", reading(1), timeout=5)
            assert (answer["code"], answer["scope"]) == ("rate_limited", "device")
            assert answer["retryAfterMs"] > 5000


async def test_an_owners_devices_share_its_rate_and_other_owners_have_their_own(fake_broker: FakeBroker) -> None:
    async with (
        gateway(fake_broker, owner_readings_per_second=5, owner_readings_per_minute=5) as running,
        running.connected(token(1)) as one,
        running.connected(token(2)) as two,
        running.connected(token(3, "user-2")) as of_other_owner,
    ):
        assert (await limited(running, one, "reading", reading(1)))["scope"] == "owner"
        assert (await two.call("reading", reading(1), timeout=5))["scope"] == "owner"
        assert await of_other_owner.call("reading", reading(1), timeout=5) == ACCEPTED


async def test_bytes_are_limited_apart_from_readings(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, device_bytes_per_second=2000) as running, running.connected(token(1)) as client:
        answer = await limited(running, client, "reading", reading("x" * 200))
        assert (answer["limit"], answer["scope"]) == (2000, "device")


async def test_a_batch_larger_than_the_rate_is_not_refused_forever(fake_broker: FakeBroker) -> None:
    batch = [reading(number) for number in range(20)]
    async with gateway(fake_broker, device_readings_per_second=10) as running, running.connected(token(1)) as client:
        assert (await client.call("readings", batch, timeout=5))["accepted"] == 20
        answer = await client.call("readings", batch, timeout=5)
        assert answer["code"] == "rate_limited"
        await asyncio.sleep(answer["retryAfterMs"] / 1000)
        assert (await client.call("readings", batch, timeout=5))["accepted"] == 20


async def test_rejected_readings_count_too(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, device_readings_per_second=5) as running, running.connected(token(1)) as client:
        answers = [await client.call("reading", {"value": None}, timeout=5) for _ in range(8)]
        assert [answer["status"] for answer in answers[:5]] == ["rejected"] * 5
        assert answers[-1]["code"] == "rate_limited"


async def test_an_owner_uses_up_to_its_limit_of_devices(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, max_series_per_owner=2) as running, AsyncExitStack() as stack:
        for name in ("a", "b", "a"):
            await stack.enter_async_context(running.connected({"token": ISSUING.user(), "device": name}))
        assert await running.refusal({"token": ISSUING.user(), "device": "c"}) == {"code": "forbidden"}
        other = {"token": ISSUING.user(owner="user-2", sub="user-2"), "device": "c"}
        await stack.enter_async_context(running.connected(other))


def of_type(*sensor_types: str) -> list[dict[str, Any]]:
    return [reading(number) | {"sensorType": name} for number, name in enumerate(sensor_types)]


@pytest.mark.parametrize("fast_lane", [True, False], ids=["fast path", "plain path"])
async def test_an_owner_uses_up_to_its_limit_of_sensor_types(fake_broker: FakeBroker, fast_lane: bool) -> None:
    async with (
        gateway(fake_broker, max_sensor_types_per_owner=3, fast_lane=fast_lane) as running,
        running.connected(token(1)) as one,
        running.connected(token(2)) as two,
        running.connected(token(3, "user-2")) as of_other_owner,
    ):
        assert (await one.call("readings", of_type("a", "b", "a", "b"), timeout=5))["accepted"] == 4
        answer = await two.call("readings", of_type("b", "c", "d", "c", "e"), timeout=5)
        assert (answer["status"], answer["accepted"]) == ("partial", 3)
        assert [(one["index"], one["code"]) for one in answer["rejected"]] == [(2, "forbidden"), (4, "forbidden")]
        for client in (one, two):
            answer = await client.call("reading", of_type("d")[0], timeout=5)
            assert (answer["status"], answer["code"]) == ("rejected", "forbidden")
            assert await client.call("reading", of_type("c")[0], timeout=5) == ACCEPTED
        assert await of_other_owner.call("reading", of_type("d")[0], timeout=5) == ACCEPTED
        renewed = await one.call("authenticate", {"token": token(1)["token"]}, timeout=5)
        assert renewed["status"] == "accepted"
        assert (await one.call("reading", of_type("d")[0], timeout=5))["code"] == "forbidden"


async def test_over_http_a_sensor_type_too_many_rejects_its_reading_alone(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, max_sensor_types_per_owner=1) as running:
        headers = {"Authorization": f"Bearer {token(1)['token']}"}
        for sent, expected in (
            (of_type("a"), (1, [])),
            (of_type("a", "b"), (1, [(1, "forbidden")])),
            (of_type("b")[0], (0, [(0, "forbidden")])),
        ):
            async with running.http.post(f"{running.url}/readings", json=sent, headers=headers) as answer:
                assert answer.status == 202
                found = await answer.json()
            assert (found["accepted"], [(one["index"], one["code"]) for one in found["rejected"]]) == expected


def limits(**chosen: Any) -> tuple[ConnectionLimits, list[float]]:
    now = [0.0]
    given = GatewaySettings(broker_url="embedded://unused", auth_url="http://unused", **chosen)
    return ConnectionLimits(given, clock=lambda: now[0]), now


def test_idle_devices_are_evicted_once_their_buckets_have_refilled() -> None:
    found, now = limits()
    for number in range(1000):
        found.acquire_session("owner", f"device-{number}", "192.0.2.1")
        found.release_session("owner", f"device-{number}", "192.0.2.1")
    now[0] = IDLE_TTL_S + 1
    for _ in range(1000):
        found.acquire_session("other", "device", "192.0.2.1")
        found.release_session("other", "device", "192.0.2.1")
    assert len(found) <= 4


def test_a_device_whose_buckets_have_not_refilled_is_remembered() -> None:
    found, now = limits(device_readings_per_minute=60)
    quota = found.acquire_session("owner", "device", "192.0.2.1")
    assert quota.acquire(150, 1, 0.0) is None
    found.release_session("owner", "device", "192.0.2.1")
    now[0] = IDLE_TTL_S + 1
    again = found.acquire_session("owner", "device", "192.0.2.1")
    assert again.acquire(60, 1, now[0]) is not None


def test_a_refused_session_leaves_no_trace() -> None:
    found, _ = limits(max_connections_per_device=1, max_series_per_owner=1)
    found.acquire_session("owner", "device", "192.0.2.1")
    for _ in range(3):
        with pytest.raises(TooManyConnections):
            found.acquire_session("owner", "device", "192.0.2.1")
        with pytest.raises(TooManyDevices):
            found.acquire_session("owner", "another", "192.0.2.1")
    found.release_session("owner", "device", "192.0.2.1")
    found.acquire_session("owner", "device", "192.0.2.1")
