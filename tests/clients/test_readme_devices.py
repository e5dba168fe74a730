"""README's devices lose nothing and store nothing twice: restarts, outages, expiry, refusals, lost acknowledgements."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.interface import ConfirmLate
from readings.document import decode_document
from testing.servers.ports import free_port
from tests.clients.readme_devices import LANGUAGES, ReadmeDevice, examples, readme_device
from tests.e2e.onebox_process import demo_credentials, start_onebox, wait_until_ready
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, RunningGateway, gateway

# Longer than any time-out of a client: python-socketio's `call` waits 60 s by default.
AWAY_S = 62.0


def token_of(device: str, **claims: Any) -> str:
    return ISSUING.device(sub=device, device=device, **claims)


def published(fake_broker: FakeBroker, device: str) -> list[tuple[int, int]]:
    """Return the distinct (seq, ts) that the broker received from this device, as a persister stores them."""
    documents = [decode_document(body) for message in fake_broker.outgoing.messages for body in message.documents()]
    keys = [document["_id"] for document in documents if document["_id"]["device"] == device]
    return sorted({(int(key["seq"]), int(key["ts"])) for key in keys})


def complete(fake_broker: FakeBroker, devices: list[ReadmeDevice]) -> None:
    """Check that no reading is missing, and none was resent with another time."""
    for device in devices:
        numbers = [seq for seq, _ in published(fake_broker, device.device)]
        assert numbers == list(range(len(numbers))), device
        assert len(numbers) >= device.accepted > 0, device


@pytest.fixture
def fake_broker() -> Iterator[FakeBroker]:
    broker = FakeBroker()
    broker.outgoing.auto_confirm = True
    yield broker
    broker.outgoing.confirm_all()


@asynccontextmanager
async def both(url: str, lasts_s: int = 3600) -> AsyncIterator[list[ReadmeDevice]]:
    """Run one device per language with a token valid for `lasts_s`; a device's id is its language."""
    async with AsyncExitStack() as stack:
        exp = int(time.time()) + lasts_s
        yield [
            await stack.enter_async_context(readme_device(one, url, one, token_of(one, exp=exp))) for one in LANGUAGES
        ]


async def refused(running: RunningGateway, code: str, times: int) -> None:
    """Return when `times` connects were refused with the code."""
    async with asyncio.timeout(30):
        while (running.registry.get_sample_value("tidegate_gateway_connects_total", {"outcome": code}) or 0) < times:
            await asyncio.sleep(0.05)


async def all_of(*waiting: Awaitable[None]) -> None:
    await asyncio.gather(*waiting)


async def test_they_wait_for_a_gateway_that_refuses_temporarily_before_and_after_the_upgrade(
    fake_broker: FakeBroker,
) -> None:
    port = free_port()
    async with both(f"http://127.0.0.1:{port}") as devices:
        async with gateway(fake_broker, at_port=port, max_connections=0) as running:
            await refused(running, "busy", 4)
        assert not any(device.accepted for device in devices)
        async with (
            gateway(fake_broker, at_port=port, max_connections_per_device=1) as running,
            AsyncExitStack() as sockets,
        ):
            for device in devices:
                socket = await sockets.enter_async_context(running.raw({"token": token_of(device.device)}))
                assert (await socket.receive_str(timeout=5)).startswith("40{")
            await refused(running, "rate_limited", 3)
            await sockets.aclose()
            await all_of(*(device.wait_for_accepted(5) for device in devices))
        complete(fake_broker, devices)


async def test_they_resend_what_was_answered_with_retry_or_not_at_all(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running, both(running.url) as devices:
        await all_of(*(device.wait_for_accepted(2) for device in devices))
        fake_broker.outgoing.failure = ConfirmLate("no confirm came in time")
        await all_of(*(device.wait_for_output("retry", 2) for device in devices))
        fake_broker.outgoing.failure = None
        await all_of(*(device.wait_for_accepted(2) for device in devices))
        fake_broker.outgoing.auto_confirm = False
        await all_of(
            *(device.wait_for_output(text) for device, text in zip(devices, ("TimeoutError", "timed out"), strict=True))
        )
        fake_broker.outgoing.confirm_all()
        await all_of(*(device.wait_for_accepted(5) for device in devices))
        complete(fake_broker, devices)
        for device in devices:
            again = [body for message in fake_broker.outgoing.messages for body in message.documents()]
            keys = [decode_document(body)["_id"] for body in again]
            sent = sum(key["device"] == device.device for key in keys)
            assert sent > len(published(fake_broker, device.device)), "nothing was resent: this test proves nothing"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("code", "claims"), [("expired", {"exp": -10}), ("forbidden", {"scope": "readings:read"})])
async def test_a_permanent_refusal_is_printed_and_the_exit_code_is_1(
    fake_broker: FakeBroker, language: str, code: str, claims: dict[str, Any]
) -> None:
    if "exp" in claims:
        claims = {"exp": int(time.time()) + claims["exp"]}
    async with (
        gateway(fake_broker) as running,
        readme_device(language, running.url, "d", token_of("d", **claims)) as device,
    ):
        assert await device.wait_for_exit() == 1
        await device.wait_for_output("refused for good", within_s=5)
        assert device.count(code), device


async def test_a_token_that_cannot_be_renewed_streams_until_it_expires_and_reports_that(
    fake_broker: FakeBroker,
) -> None:
    """This gateway has no auth service."""
    async with gateway(fake_broker, expiring_seconds=5.0) as running, both(running.url, lasts_s=20) as devices:
        for code in await asyncio.gather(*(device.wait_for_exit() for device in devices)):
            assert code == 1
        for device in devices:
            assert device.count("expired"), device
        complete(fake_broker, devices)


@pytest.mark.timeout(420)
async def test_they_live_through_an_outage_a_kill_and_the_end_of_their_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCRYPT_COST", "4")
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    async def up() -> asyncio.subprocess.Process:
        process = await start_onebox("--port", str(port), "--devices", "0", data=tmp_path)
        await wait_until_ready(process, url)
        return process

    onebox = await up()
    try:
        async with aiohttp.ClientSession(url) as http, AsyncExitStack() as stack:
            owner = await Owner.logged_in(http, tmp_path)
            devices = [
                await stack.enter_async_context(readme_device(language, url, *await owner.device(language)))
                for language in LANGUAGES
            ]
            await all_of(*(device.wait_for_accepted(3) for device in devices))
            onebox.send_signal(signal.SIGTERM)
            await onebox.communicate()
            await asyncio.sleep(AWAY_S)
            # Renewed on reconnect, their tokens expire soon, repeatedly; each outlives a kill and a restart.
            monkeypatch.setenv("DEVICE_TOKEN_SECONDS", "25")
            monkeypatch.setenv("EXPIRING_SECONDS", "20")
            onebox = await up()
            await all_of(*(device.wait_for_accepted(int(AWAY_S)) for device in devices))
            lost = [device.count("not ") for device in devices]
            await all_of(*(device.wait_for_accepted(28, within_s=60) for device in devices))
            assert [device.count("not ") for device in devices] == lost, "a session did not outlive its first token"
            monkeypatch.delenv("DEVICE_TOKEN_SECONDS")
            os.killpg(onebox.pid, signal.SIGKILL)
            await onebox.communicate()
            onebox = await up()
            await all_of(*(device.wait_for_accepted(3) for device in devices))
            for device in devices:
                await owner.stores_all_once(device)
                await owner.revoke(device)
                assert await device.wait_for_exit() == 1
                assert device.count("revoked"), device
    finally:
        if onebox.returncode is None:
            os.killpg(onebox.pid, signal.SIGKILL)
        await onebox.communicate()


class Owner:
    """The demo user, who registers devices and reads their stored readings."""

    def __init__(self, http: aiohttp.ClientSession, bearer: dict[str, str]) -> None:
        self.http = http
        self.bearer = bearer

    @classmethod
    async def logged_in(cls, http: aiohttp.ClientSession, data: Path) -> "Owner":
        async with asyncio.timeout(30):
            while True:
                async with http.post("/user/login", json=demo_credentials(data)) as answer:
                    if answer.status == 200:  # the demo user signs up shortly after the first response
                        return cls(http, {"Authorization": f"Bearer {(await answer.json())['accessToken']}"})
                await asyncio.sleep(0.1)

    async def device(self, name: str) -> tuple[str, str]:
        body = {"sensorType": "temperature", "location": "roof", "name": name}
        async with self.http.post("/devices", json=body, headers=self.bearer) as answer:
            device = (await answer.json())["id"]
        async with self.http.post(f"/devices/{device}/token", headers=self.bearer) as answer:
            return device, (await answer.json())["token"]

    async def revoke(self, device: ReadmeDevice) -> None:
        async with self.http.delete(f"/devices/{device.device}/tokens", headers=self.bearer) as answer:
            assert answer.status == 204

    async def stores_all_once(self, device: ReadmeDevice) -> None:
        """Check that all acknowledged readings are stored, without gaps and duplicates."""
        wait_for_accepted = device.accepted
        query = {"device": device.device, "sensorType": "temperature", "format": "ndjson"}
        numbers: list[int] = []
        async with asyncio.timeout(20):
            while len(numbers) < wait_for_accepted:
                async with self.http.get("/readings", params=query, headers=self.bearer) as answer:
                    numbers = [json.loads(line)["seq"] for line in (await answer.text()).splitlines()]
        assert numbers == list(range(len(numbers))), device


def test_they_are_short_enough_to_read() -> None:
    assert list(examples()) == list(LANGUAGES)
    for language, text in examples().items():
        assert len([line for line in text.splitlines() if line]) <= 45, language
