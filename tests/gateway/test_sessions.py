"""Sessions that are renewed, expire or are revoked, on both lanes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from access.revocations import RevocationList
from access.tokens import KeySet
from gateway.socket.session_timers import Expiries
from readings.document import decode_document
from testing.issuer import Issuer
from testing.waiting import eventually
from tests.gateway.held import HeldBroker
from tests.gateway.running import ACCEPTED, ISSUING, Running, closed, gateway, reading

pytestmark = pytest.mark.usefixtures("lane", "confirming")


def in_s(seconds: float) -> int:
    """An `exp` that is between `seconds` and one more from now."""
    return int(time.time() + seconds) + 1


class Heard:
    """What the gateway told one client about its token, and when."""

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

    async def hears(self, name: str, within_s: float = 5) -> tuple[Any, float]:
        async def heard() -> bool:
            return name in self.names

        async with asyncio.timeout(within_s):
            await eventually(heard, f"{name} is heard")
        return next((data, at) for heard, data, at in self.events if heard == name)

    async def renew(self, **claims: Any) -> dict[str, Any]:
        return await self.authenticate({"token": ISSUING.device(**claims)})

    async def authenticate(self, payload: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.client.call("authenticate", payload, timeout=5)
        return answer

    async def streams(self) -> bool:
        return bool(await self.client.call("reading", reading(1), timeout=5) == ACCEPTED)


@asynccontextmanager
async def device(running: Running, **claims: Any) -> AsyncIterator[Heard]:
    async with running.connected({"token": ISSUING.device(**claims)}) as client:
        yield Heard(client)


# Expiry


async def test_a_device_is_warned_told_and_closed_on_time_although_it_streams_all_the_time(held: HeldBroker) -> None:
    async with gateway(held, expiring_seconds=1.0) as running:
        expires_at = in_s(2)
        async with device(running, exp=expires_at) as heard:
            while not heard.gone.is_set() and time.time() < expires_at + 5:
                await heard.client.emit("reading", reading(1))
                await asyncio.sleep(0.01)
            (_, warning, warned_at), (_, _, told_at) = heard.events
            assert heard.names == ["auth_expiring", "auth_expired"]
            assert datetime.fromisoformat(warning["expiresAt"]).timestamp() == expires_at
            assert warning["expiresAt"].endswith(".000Z")
            assert warned_at == pytest.approx(expires_at - 1, abs=0.7)
            assert told_at == pytest.approx(expires_at, abs=0.7)


async def test_a_token_that_lives_shorter_than_the_warning_is_warned_of_at_once(held: HeldBroker) -> None:
    async with gateway(held) as running, device(running, exp=in_s(30)) as heard:
        await heard.hears("auth_expiring", 1)


@pytest.fixture
def leap(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the time of day leap, as after a correction or while the host slept; no timer's clock knows of it."""
    real = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: real() + seconds)


async def test_a_session_whose_token_expired_while_the_clock_leapt_ends_at_once_and_others_stay(
    held: HeldBroker, leap: Callable[[float], None]
) -> None:
    async with (
        gateway(held) as running,
        device(running, exp=in_s(3600)) as heard,
        device(running, exp=in_s(7300), sub="device-2", device="device-2") as stays,
    ):
        leap(3601.5)
        await heard.hears("auth_expired")
        await asyncio.wait_for(heard.gone.wait(), 5)
        assert stays.names == []
        assert await stays.streams()


async def test_a_session_is_warned_when_the_clock_leaps_into_its_last_minute_and_not_again_when_it_goes_back(
    held: HeldBroker, leap: Callable[[float], None]
) -> None:
    async with gateway(held) as running:
        expires_at = in_s(3600)
        async with device(running, exp=expires_at) as heard:
            leap(3550)
            await heard.hears("auth_expiring")
            leap(0)
            leap(3550)
            await asyncio.sleep(0.6)
            assert heard.names == ["auth_expiring"]
            assert await heard.streams()
            leap(3601.5)
            await heard.hears("auth_expired")


async def test_to_look_at_100_000_sessions_of_which_none_is_due_costs_next_to_nothing() -> None:
    told: list[tuple[str, bool]] = []
    expiries = Expiries(60, lambda sid, over: told.append((sid, over)))
    for number in range(100_000):
        expiries.set(f"s{number}", in_s(3600 + number % 1000))
    started = time.perf_counter()
    for _ in range(100):
        assert expiries.look() == 0
    assert time.perf_counter() - started < 0.1, "one look takes less than a millisecond"
    assert told == []


async def test_sessions_that_come_and_go_for_a_month_leave_nothing_behind() -> None:
    expiries = Expiries(60, lambda _sid, _over: None)
    for number in range(50_000):
        expiries.set(f"s{number}", in_s(30 * 86400))
        expiries.set(f"s{number}", in_s(30 * 86400))
        expiries.drop(f"s{number}")
    assert (len(expiries), len(expiries._heap) <= 2000) == (0, True)


async def test_an_expired_socket_closes_with_policy_violation(held: HeldBroker) -> None:
    async with gateway(held) as running, running.raw({"token": ISSUING.device(exp=in_s(0))}) as socket:
        code, texts = await closed(socket)
        assert code == 1008
        assert '42["auth_expired",{}]' in texts


async def test_a_renewed_session_outlives_its_first_token_and_ends_with_its_second(held: HeldBroker) -> None:
    async with gateway(held, expiring_seconds=0.5) as running:
        first, second = in_s(1), in_s(3)
        async with device(running, exp=first) as heard:
            answer = await heard.renew(exp=second)
            assert answer["status"] == "accepted"
            assert datetime.fromisoformat(answer["expiresAt"]).timestamp() == second
            await asyncio.sleep(first - time.time() + 0.3)
            assert heard.names == []
            assert await heard.streams()
            _, told_at = await heard.hears("auth_expired")
            assert told_at == pytest.approx(second, abs=0.7)


async def test_later_readings_carry_what_the_new_token_says(held: HeldBroker) -> None:
    async with gateway(held) as running, device(running) as heard:
        for _ in range(3):
            assert await heard.streams()
        assert (await heard.renew(sensorType="humidity", location="cellar"))["status"] == "accepted"
        assert await heard.streams()
        documents = [decode_document(body) for message in held.held.messages for body in message.documents()]
        told = [(one["_id"]["sensorType"], one["location"]) for one in documents]
        assert told == [("temperature", "roof")] * 3 + [("humidity", "cellar")]


async def test_a_users_token_leaves_what_the_devices_token_said_until_another_says_else(held: HeldBroker) -> None:
    place = {"lat": 1.5, "lon": 2.5}
    tokens = [
        ISSUING.user(),
        ISSUING.device(sensorType="humidity", location=place),
        ISSUING.user(jti="other"),
        ISSUING.device(location=None),
    ]
    async with gateway(held) as running, device(running) as heard:
        assert await heard.streams()
        for token in tokens:
            assert (await heard.authenticate({"token": token}))["status"] == "accepted"
            assert await heard.streams()
    documents = [decode_document(body) for message in held.held.messages for body in message.documents()]
    told = [(one["_id"]["sensorType"], one["location"]) for one in documents]
    assert told == [("temperature", "roof")] * 2 + [("humidity", place)] * 2 + [("temperature", place)]


async def test_a_users_session_that_is_renewed_by_the_devices_token_is_the_device_from_then_on(
    held: HeldBroker,
) -> None:
    async with (
        gateway(held) as running,
        running.connected({"token": ISSUING.user(), "device": "device-1"}) as client,
    ):
        heard = Heard(client)
        assert (await client.call("reading", reading(1), timeout=5))["code"] == "invalid_field"  # no sensorType
        for token in (ISSUING.device(), ISSUING.user()):
            assert (await heard.authenticate({"token": token}))["status"] == "accepted"
            assert await heard.streams()


async def test_a_users_session_goes_on_with_another_token_of_the_user_or_with_the_devices_own(held: HeldBroker) -> None:
    async with (
        gateway(held) as running,
        running.connected({"token": ISSUING.user(), "device": "device-1"}) as client,
    ):
        for token in (ISSUING.user(jti="other", sid="another"), ISSUING.device(), ISSUING.user()):
            assert (await client.call("authenticate", {"token": token}, timeout=5))["status"] == "accepted"


BAD_TOKENS: dict[str, tuple[str, Callable[[], str]]] = {
    "another owner": ("forbidden", lambda: ISSUING.device(owner="user-2")),
    "another device": ("forbidden", lambda: ISSUING.device(sub="device-2", device="device-2")),
    "another user": ("forbidden", lambda: ISSUING.user(sub="user-2", owner="user-2")),
    "no scope": ("forbidden", lambda: ISSUING.device(scope="readings:read")),
    "expired": ("expired", lambda: ISSUING.device(iat=in_s(-60), exp=in_s(-30))),
    "no token": ("unauthorized", lambda: "garbage"),
    "empty": ("unauthorized", lambda: ""),
    "1 MB": ("unauthorized", lambda: "x" * 1_000_000),
}


@pytest.mark.parametrize("what", BAD_TOKENS)
async def test_a_token_that_is_not_taken_leaves_the_session_as_it_was(held: HeldBroker, what: str) -> None:
    code, token = BAD_TOKENS[what]
    async with gateway(held) as running:
        expires_at = in_s(1)
        async with device(running, exp=expires_at) as heard:
            answer = await heard.authenticate({"token": token()})
            assert (answer["status"], answer["code"]) == ("rejected", code)
            assert answer["detail"]
            assert await heard.streams()
            await heard.hears("auth_expired")
            assert time.time() >= expires_at - 0.1


@pytest.mark.parametrize("payload", [None, (), ({}, {}), "x", {"token": 7}, {"token": "x", "more": 1}, ["x"]])
async def test_authenticate_in_another_form_is_an_invalid_event(held: HeldBroker, payload: Any) -> None:
    async with gateway(held) as running, device(running) as heard:
        answer = await heard.authenticate(payload)
        assert (answer["status"], answer["code"]) == ("rejected", "invalid_reading")
        assert await heard.streams()


async def test_too_many_tokens_in_a_row_have_to_wait(held: HeldBroker) -> None:
    async with gateway(held) as running, device(running) as heard:
        answers = [await heard.renew() for _ in range(11)]
        assert [answer["status"] for answer in answers] == ["accepted"] * 10 + ["retry"]
        wait = answers[-1]
        assert (wait["code"], wait["limit"], wait["scope"]) == ("rate_limited", 10, "device")
        await asyncio.sleep(wait["retryAfterMs"] / 1000)
        assert (await heard.renew())["status"] == "accepted"


async def test_authenticate_may_come_without_an_acknowledgement(held: HeldBroker) -> None:
    async with gateway(held, expiring_seconds=0.2) as running:
        first = in_s(1)
        async with device(running, exp=first) as heard:
            await heard.client.emit("authenticate", {"token": ISSUING.device()})
            await asyncio.sleep(first - time.time() + 0.5)
            assert await heard.streams()


async def test_a_token_of_the_future_is_a_reason_to_come_again_and_the_session_goes_on(held: HeldBroker) -> None:
    async with gateway(held) as running, device(running) as heard:
        answer = await heard.renew(iat=in_s(3600), exp=in_s(7200))
        assert (answer["status"], answer["code"]) == ("retry", "unavailable")
        assert answer["retryAfterMs"] > 0
        assert await heard.streams()


async def test_a_key_that_cannot_be_asked_for_is_a_reason_to_come_again(held: HeldBroker) -> None:
    away = False

    async def fetch() -> dict[str, Any]:
        if away:
            raise OSError("away")
        return ISSUING.jwks()

    async with gateway(held, keys=KeySet(fetch)) as running, device(running) as heard:
        away = True
        other = type(ISSUING)("key-2")
        answer = await heard.authenticate({"token": other.device()})
        assert (answer["status"], answer["code"]) == ("retry", "unavailable")
        assert answer["retryAfterMs"] > 0
        assert await heard.streams()


# Revocation


class Listing:
    """What the issuer would answer."""

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
async def test_a_revoked_device_is_told_and_closed_and_others_stream_on(
    held: HeldBroker, kind: str, name: str, more: dict[str, Any]
) -> None:
    listing = Listing()
    newer = Issuer("key-2")
    other = {"sub": "device-2", "device": "device-2", "owner": "user-2", "jti": "jti-2"}

    async def jwks() -> dict[str, Any]:
        return {"keys": [ISSUING.jwk(), newer.jwk()]}

    async with (
        gateway(held, revocations=listing.polled(), keys=KeySet(jwks)) as running,
        device(running) as heard,
        running.connected({"token": newer.device(**other)}) as client,
    ):
        stays = Heard(client)
        listing.revoke(kind, name, **more)
        await heard.hears("auth_revoked")
        await asyncio.wait_for(heard.gone.wait(), 5)
        assert await running.refusal({"token": ISSUING.device()}) == {"code": "revoked"}
        assert await stays.streams()
        assert stays.names == []
        assert running.registry.get_sample_value("tidegate_gateway_ended_total", {"why": "revoked"}) == 1


async def test_a_log_out_ends_the_users_sessions_and_not_the_devices(held: HeldBroker) -> None:
    listing = Listing()
    async with (
        gateway(held, revocations=listing.polled()) as running,
        running.connected({"token": ISSUING.user(), "device": "d"}) as client,
        device(running) as stays,
    ):
        heard = Heard(client)
        listing.revoke("sid", "family-1")
        await heard.hears("auth_revoked")
        listing.revoke("user", "user-1", gen=5)
        await asyncio.sleep(0.3)
        assert await stays.streams()


async def test_a_device_with_a_newer_token_stays(held: HeldBroker) -> None:
    listing = Listing()
    async with gateway(held, revocations=listing.polled()) as running, device(running) as heard:
        assert (await heard.renew(gen=1, jti="newer"))["status"] == "accepted"
        listing.revoke("device", "device-1", gen=1)
        await asyncio.sleep(0.5)
        assert await heard.streams()
        assert (await heard.renew(gen=0, jti="older"))["code"] == "revoked"
        assert await heard.streams()


async def test_every_replica_ends_what_is_revoked(held: HeldBroker) -> None:
    listing = Listing()
    async with (
        gateway(held, revocations=listing.polled()) as one,
        gateway(held, revocations=listing.polled()) as other,
        device(one) as here,
        device(other) as there,
    ):
        listing.revoke("device", "device-1")
        await asyncio.gather(here.hears("auth_revoked"), there.hears("auth_revoked"))


async def test_while_auth_is_away_devices_stream_connect_and_stay_revoked(held: HeldBroker) -> None:
    listing = Listing()
    listing.revoke("jti", "revoked-before")
    async with gateway(held, revocations=listing.polled()) as running, device(running) as heard:
        listing.away = True
        await asyncio.sleep(0.3)
        assert await heard.streams()
        async with device(running, jti="jti-3") as newcomer:
            assert await newcomer.streams()
        assert (await running.refusal({"token": ISSUING.device(jti="revoked-before")}))["code"] == "revoked"


async def test_before_the_list_is_known_nobody_is_let_in(held: HeldBroker) -> None:
    listing = Listing()
    listing.away = True
    async with gateway(held, revocations=listing.polled()) as running:
        assert (await running.not_upgraded())["code"] == "unavailable"
        listing.away = False

        async def let_in() -> bool:
            try:
                async with device(running):
                    return True
            except ConnectionError:
                return False

        await asyncio.sleep(0.3)
        assert await let_in()


async def test_an_owner_who_is_gone_takes_80_sessions_along_and_nobody_else_feels_it(held: HeldBroker) -> None:
    listing = Listing()
    async with gateway(held, revocations=listing.polled()) as running, AsyncExitStack() as stack:
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


async def connections(running: Running, count: int) -> bool:
    return running.count("connections") == count
