"""Sessions that are renewed, expire or are revoked, on the fast path and on the plain path."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from access.revocations import RevocationList
from access.tokens import KeySet
from gateway import from_devices
from readings.document import decode_document
from runtime.process import OBJECTS_PER_EVENT, YOUNG_OBJECTS
from testing.issuer import Issuer
from testing.waiting import eventually
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ACCEPTED, ISSUING, RunningGateway, closed, gateway, reading

pytestmark = pytest.mark.usefixtures("path", "confirming")


def in_s(seconds: float) -> int:
    """An `exp` that is between `seconds` and one more from now."""
    return int(time.time() + seconds) + 1


class Sender:
    """A device's client, and the events about its token that it received, with their times."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.events: list[tuple[str, Any, float]] = []
        self.gone = asyncio.Event()
        for name in ("auth_expiring", "auth_expired", "auth_revoked"):
            client.on(name, lambda data, name=name: self.events.append((name, data, time.time())))
        client.on("disconnect", lambda *_: self.gone.set())

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.events]

    async def receives(self, name: str, within_s: float = 5) -> tuple[Any, float]:
        async def received() -> bool:
            return name in self.names

        async with asyncio.timeout(within_s):
            await eventually(received, f"{name} is received")
        return next((data, at) for event, data, at in self.events if event == name)

    async def renew(self, **claims: Any) -> dict[str, Any]:
        return await self.authenticate({"token": ISSUING.device(**claims)})

    async def authenticate(self, payload: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.client.call("authenticate", payload, timeout=5)
        return answer

    async def streams(self) -> bool:
        return bool(await self.client.call("reading", reading(1), timeout=5) == ACCEPTED)


@asynccontextmanager
async def device(running: RunningGateway, **claims: Any) -> AsyncIterator[Sender]:
    async with running.connected({"token": ISSUING.device(**claims)}) as client:
        yield Sender(client)


# Expiry


async def test_a_device_is_warned_notified_and_closed_on_time_while_it_streams(
    fake_broker: FakeBroker,
) -> None:
    async with gateway(fake_broker, expiring_seconds=1.0) as running:
        expires_at = in_s(2)
        async with device(running, exp=expires_at) as sender:
            while not sender.gone.is_set() and time.time() < expires_at + 5:
                await sender.client.emit("reading", reading(1))
                await asyncio.sleep(0.01)
            (_, warning, warned_at), (_, _, expired_at) = sender.events
            assert sender.names == ["auth_expiring", "auth_expired"]
            assert datetime.fromisoformat(warning["expiresAt"]).timestamp() == expires_at
            assert warning["expiresAt"].endswith(".000Z")
            assert warned_at == pytest.approx(expires_at - 1, abs=0.7)
            assert expired_at == pytest.approx(expires_at, abs=0.7)


async def test_a_token_that_lives_shorter_than_the_warning_is_warned_of_at_once(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running, device(running, exp=in_s(30)) as sender:
        await sender.receives("auth_expiring", 1)


@pytest.fixture
def leap(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make the time of day jump, as after a correction or while the host slept; the monotonic clock does not."""
    real = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: real() + seconds)


async def test_a_session_whose_token_expired_while_the_clock_leapt_ends_at_once_and_others_stay(
    fake_broker: FakeBroker, leap: Callable[[float], None]
) -> None:
    async with (
        gateway(fake_broker) as running,
        device(running, exp=in_s(3600)) as sender,
        device(running, exp=in_s(7300), sub="device-2", device="device-2") as stays,
    ):
        leap(3601.5)
        await sender.receives("auth_expired")
        await asyncio.wait_for(sender.gone.wait(), 5)
        assert stays.names == []
        assert await stays.streams()


async def test_a_session_is_warned_when_the_clock_leaps_into_its_last_minute_and_not_again_when_it_goes_back(
    fake_broker: FakeBroker, leap: Callable[[float], None]
) -> None:
    async with gateway(fake_broker) as running:
        expires_at = in_s(3600)
        async with device(running, exp=expires_at) as sender:
            leap(3550)
            await sender.receives("auth_expiring")
            leap(0)
            leap(3550)
            await asyncio.sleep(0.6)
            assert sender.names == ["auth_expiring"]
            assert await sender.streams()
            leap(3601.5)
            await sender.receives("auth_expired")


async def test_an_expired_socket_closes_with_policy_violation(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running, running.raw({"token": ISSUING.device(exp=in_s(0))}) as socket:
        code, texts = await closed(socket)
        assert code == 1008
        assert '42["auth_expired",{}]' in texts


async def test_a_renewed_session_outlives_its_first_token_and_ends_with_its_second(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, expiring_seconds=0.5) as running:
        first, second = in_s(1), in_s(3)
        async with device(running, exp=first) as sender:
            answer = await sender.renew(exp=second)
            assert answer["status"] == "accepted"
            assert datetime.fromisoformat(answer["expiresAt"]).timestamp() == second
            await asyncio.sleep(first - time.time() + 0.3)
            assert sender.names == []
            assert await sender.streams()
            _, expired_at = await sender.receives("auth_expired")
            assert expired_at == pytest.approx(second, abs=0.7)


async def test_later_readings_carry_what_the_new_token_says(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running, device(running) as sender:
        for _ in range(3):
            assert await sender.streams()
        assert (await sender.renew(sensorType="humidity", location="cellar"))["status"] == "accepted"
        assert await sender.streams()
        documents = [decode_document(body) for message in fake_broker.outgoing.messages for body in message.documents()]
        published = [(one["_id"]["sensorType"], one["location"]) for one in documents]
        assert published == [("temperature", "roof")] * 3 + [("humidity", "cellar")]


async def test_a_users_token_leaves_what_the_devices_token_said_until_another_says_else(
    fake_broker: FakeBroker,
) -> None:
    place = {"lat": 1.5, "lon": 2.5}
    tokens = [
        ISSUING.user(),
        ISSUING.device(sensorType="humidity", location=place),
        ISSUING.user(jti="other"),
        ISSUING.device(location=None),
    ]
    async with gateway(fake_broker) as running, device(running) as sender:
        assert await sender.streams()
        for token in tokens:
            assert (await sender.authenticate({"token": token}))["status"] == "accepted"
            assert await sender.streams()
    documents = [decode_document(body) for message in fake_broker.outgoing.messages for body in message.documents()]
    published = [(one["_id"]["sensorType"], one["location"]) for one in documents]
    assert published == [("temperature", "roof")] * 2 + [("humidity", place)] * 2 + [("temperature", place)]


async def test_a_users_session_that_is_renewed_by_the_devices_token_is_the_device_from_then_on(
    fake_broker: FakeBroker,
) -> None:
    async with (
        gateway(fake_broker) as running,
        running.connected({"token": ISSUING.user(), "device": "device-1"}) as client,
    ):
        sender = Sender(client)
        assert (await client.call("reading", reading(1), timeout=5))["code"] == "invalid_field"  # no sensorType
        for token in (ISSUING.device(), ISSUING.user()):
            assert (await sender.authenticate({"token": token}))["status"] == "accepted"
            assert await sender.streams()


async def test_a_users_session_goes_on_with_another_token_of_the_user_or_with_the_devices_own(
    fake_broker: FakeBroker,
) -> None:
    async with (
        gateway(fake_broker) as running,
        running.connected({"token": ISSUING.user(), "device": "device-1"}) as client,
    ):
        for token in (
            ISSUING.user(jti="other", sid="another"),
            ISSUING.device(),
            ISSUING.api_key(devices=["device-1"]),
            ISSUING.user(),
        ):
            assert (await client.call("authenticate", {"token": token}, timeout=5))["status"] == "accepted"


BAD_TOKENS: dict[str, tuple[str, Callable[[], str]]] = {
    "another owner": ("forbidden", lambda: ISSUING.device(owner="user-2")),
    "another device": ("forbidden", lambda: ISSUING.device(sub="device-2", device="device-2")),
    "another user": ("forbidden", lambda: ISSUING.user(sub="user-2", owner="user-2")),
    "an API key for others": ("forbidden", lambda: ISSUING.api_key(devices=["device-2"])),
    "another owner's API key": ("forbidden", lambda: ISSUING.api_key(sub="user-2", owner="user-2")),
    "no scope": ("forbidden", lambda: ISSUING.device(scope="readings:read")),
    "expired": ("expired", lambda: ISSUING.device(iat=in_s(-60), exp=in_s(-30))),
    "no token": ("unauthorized", lambda: "garbage"),
    "empty": ("unauthorized", lambda: ""),
    "1 MB": ("unauthorized", lambda: "x" * 1_000_000),
}


@pytest.mark.parametrize("what", BAD_TOKENS)
async def test_a_token_that_is_not_taken_leaves_the_session_as_it_was(fake_broker: FakeBroker, what: str) -> None:
    code, token = BAD_TOKENS[what]
    async with gateway(fake_broker) as running:
        expires_at = in_s(1)
        async with device(running, exp=expires_at) as sender:
            answer = await sender.authenticate({"token": token()})
            assert (answer["status"], answer["code"]) == ("rejected", code)
            assert answer["detail"]
            assert await sender.streams()
            await sender.receives("auth_expired")
            assert time.time() >= expires_at - 0.1


@pytest.mark.parametrize("payload", [None, (), ({}, {}), "x", {"token": 7}, {"token": "x", "more": 1}, ["x"]])
async def test_authenticate_in_another_form_is_an_invalid_event(fake_broker: FakeBroker, payload: Any) -> None:
    async with gateway(fake_broker) as running, device(running) as sender:
        answer = await sender.authenticate(payload)
        assert (answer["status"], answer["code"]) == ("rejected", "invalid_reading")
        assert await sender.streams()


async def test_too_many_tokens_in_a_row_have_to_wait(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running, device(running) as sender:
        answers = [await sender.renew() for _ in range(11)]
        assert [answer["status"] for answer in answers] == ["accepted"] * 10 + ["retry"]
        wait = answers[-1]
        assert (wait["code"], wait["limit"], wait["scope"]) == ("rate_limited", 10, "device")
        await asyncio.sleep(wait["retryAfterMs"] / 1000)
        assert (await sender.renew())["status"] == "accepted"


async def test_authenticate_may_come_without_an_acknowledgement(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker, expiring_seconds=0.2) as running:
        first = in_s(1)
        async with device(running, exp=first) as sender:
            await sender.client.emit("authenticate", {"token": ISSUING.device()})
            await asyncio.sleep(first - time.time() + 0.5)
            assert await sender.streams()


async def test_a_token_of_the_future_is_a_reason_to_retry_and_the_session_goes_on(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running, device(running) as sender:
        answer = await sender.renew(iat=in_s(3600), exp=in_s(7200))
        assert (answer["status"], answer["code"]) == ("retry", "unavailable")
        assert answer["retryAfterMs"] > 0
        assert await sender.streams()


async def test_a_key_that_cannot_be_fetched_is_a_reason_to_retry(fake_broker: FakeBroker) -> None:
    away = False

    async def fetch() -> dict[str, Any]:
        if away:
            raise OSError("away")
        return ISSUING.jwks()

    async with gateway(fake_broker, keys=KeySet(fetch)) as running, device(running) as sender:
        away = True
        other = type(ISSUING)("key-2")
        answer = await sender.authenticate({"token": other.device()})
        assert (answer["status"], answer["code"]) == ("retry", "unavailable")
        assert answer["retryAfterMs"] > 0
        assert await sender.streams()


# Revocation


class Listing:
    """The issuer's list of revocations."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.away = False

    def revoke(self, kind: str, name: str, **more: Any) -> None:
        self.items.append({"kind": kind, "id": name, "until": "2040-01-01T00:00:00.000Z", **more})

    async def fetch(self, _: str | None) -> bytes:
        if self.away:
            raise OSError("away")
        return json.dumps({"items": self.items, "cursor": str(len(self.items))}).encode()

    def polled(self) -> RevocationList:
        return RevocationList(self.fetch, every_s=0.1)


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        ("jti", "jti-1", {}),
        ("device", "device-1", {}),
        ("device", "device-1", {"gen": 1}),
        ("user", "user-1", {}),
        ("kid", ISSUING.kid, {}),
    ],
)
async def test_a_revoked_device_is_notified_and_closed_and_others_stream_on(
    fake_broker: FakeBroker, kind: str, name: str, more: dict[str, Any]
) -> None:
    listing = Listing()
    newer = Issuer("key-2")
    other = {"sub": "device-2", "device": "device-2", "owner": "user-2", "jti": "jti-2"}

    async def jwks() -> dict[str, Any]:
        return {"keys": [ISSUING.jwk(), newer.jwk()]}

    async with (
        gateway(fake_broker, revocations=listing.polled(), keys=KeySet(jwks)) as running,
        device(running) as sender,
        running.connected({"token": newer.device(**other)}) as client,
    ):
        stays = Sender(client)
        listing.revoke(kind, name, **more)
        await sender.receives("auth_revoked")
        await asyncio.wait_for(sender.gone.wait(), 5)
        assert await running.refusal({"token": ISSUING.device()}) == {"code": "revoked"}
        assert await stays.streams()
        assert stays.names == []
        assert running.registry.get_sample_value("tidegate_gateway_ended_total", {"why": "revoked"}) == 1


async def test_the_end_of_an_api_key_ends_its_socket_and_that_of_a_token_that_it_issued(
    fake_broker: FakeBroker,
) -> None:
    listing = Listing()
    async with (
        gateway(fake_broker, revocations=listing.polled()) as running,
        running.connected({"token": ISSUING.api_key(devices=["d"]), "device": "d"}) as client,
        device(running, jti="jti-2", issuingKey="api-key-1") as issued,
        device(running) as stays,
    ):
        ends = Sender(client)
        assert await issued.streams()
        listing.revoke("user", "user-1", gen=5)  # a new password, which does not end it
        listing.revoke("jti", "api-key-1")
        for sender in (ends, issued):
            await sender.receives("auth_revoked")
        assert (await stays.authenticate({"token": ISSUING.api_key(devices=["device-1"])}))["code"] == "revoked"
        assert await stays.streams()


async def test_a_log_out_ends_the_users_sessions_and_not_the_devices(fake_broker: FakeBroker) -> None:
    listing = Listing()
    async with (
        gateway(fake_broker, revocations=listing.polled()) as running,
        running.connected({"token": ISSUING.user(), "device": "d"}) as client,
        device(running) as stays,
    ):
        sender = Sender(client)
        listing.revoke("sid", "family-1")
        await sender.receives("auth_revoked")
        listing.revoke("user", "user-1", gen=5)
        await asyncio.sleep(0.3)
        assert await stays.streams()


async def test_a_device_with_a_newer_token_stays(fake_broker: FakeBroker) -> None:
    listing = Listing()
    async with gateway(fake_broker, revocations=listing.polled()) as running, device(running) as sender:
        assert (await sender.renew(gen=1, jti="newer"))["status"] == "accepted"
        listing.revoke("device", "device-1", gen=1)
        await asyncio.sleep(0.5)
        assert await sender.streams()
        assert (await sender.renew(gen=0, jti="older"))["code"] == "revoked"
        assert await sender.streams()


async def test_every_replica_ends_what_is_revoked(fake_broker: FakeBroker) -> None:
    listing = Listing()
    async with (
        gateway(fake_broker, revocations=listing.polled()) as one,
        gateway(fake_broker, revocations=listing.polled()) as other,
        device(one) as here,
        device(other) as there,
    ):
        listing.revoke("device", "device-1")
        await asyncio.gather(here.receives("auth_revoked"), there.receives("auth_revoked"))


async def test_while_auth_is_away_devices_stream_connect_and_stay_revoked(fake_broker: FakeBroker) -> None:
    listing = Listing()
    listing.revoke("jti", "revoked-before")
    async with gateway(fake_broker, revocations=listing.polled()) as running, device(running) as sender:
        listing.away = True
        await asyncio.sleep(0.3)
        assert await sender.streams()
        async with device(running, jti="jti-3") as newcomer:
            assert await newcomer.streams()
        assert (await running.refusal({"token": ISSUING.device(jti="revoked-before")}))["code"] == "revoked"


async def test_before_the_list_is_known_no_client_is_admitted(fake_broker: FakeBroker) -> None:
    listing = Listing()
    listing.away = True
    async with gateway(fake_broker, revocations=listing.polled()) as running:
        assert (await running.not_upgraded())["code"] == "unavailable"
        listing.away = False

        async def admitted() -> bool:
            try:
                async with device(running):
                    return True
            except ConnectionError:
                return False

        await asyncio.sleep(0.3)
        assert await admitted()


async def test_revoking_an_owner_ends_its_80_sessions_without_disturbing_others(fake_broker: FakeBroker) -> None:
    listing = Listing()
    async with gateway(fake_broker, revocations=listing.polled()) as running, AsyncExitStack() as stack:
        endings = []
        for number in range(80):
            name = f"device-{number}"
            token = {"token": ISSUING.device(sub=name, device=name, jti=name)}
            socket = await stack.enter_async_context(running.raw(token))
            endings.append(asyncio.ensure_future(closed(socket, 20)))
        honest = await stack.enter_async_context(device(running, owner="user-2", sub="honest", device="honest"))
        await eventually(lambda: connections(running, 81), "all are connected")
        listing.revoke("user", "user-1")
        started, slowest = time.monotonic(), 0.0
        while running.count("connections") > 1 and time.monotonic() - started < 5:
            asked = time.monotonic()
            assert await honest.streams()
            slowest = max(slowest, time.monotonic() - asked)
        assert running.count("connections") == 1
        assert slowest < 1
        for code, texts in await asyncio.gather(*endings):
            assert (code, texts[-1]) == (1008, '42["auth_revoked",{}]')


async def connections(running: RunningGateway, count: int) -> bool:
    return running.count("connections") == count


async def test_the_garbage_collector_waits_for_the_events_of_all_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_devices, "SESSIONS_STEP", 2)
    before = gc.get_threshold()
    async with gateway(FakeBroker()) as running, AsyncExitStack() as stack:
        try:
            for _ in range(5):
                await stack.enter_async_context(running.connected({"token": ISSUING.device()}))
            assert gc.get_threshold() == (YOUNG_OBJECTS + 4 * OBJECTS_PER_EVENT, *before[1:])
            await stack.aclose()

            async def is_small() -> bool:
                return gc.get_threshold()[0] == YOUNG_OBJECTS

            await eventually(is_small, "all sessions have ended")
        finally:
            gc.set_threshold(*before)
