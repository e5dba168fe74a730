"""The JavaScript library's token: renewed in place, fetched again after its end, refused for good."""

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from tests.device.javascript_edge import Edge, edge, published
from tests.device.javascript_process import DeviceError, JavaScriptDevice, javascript_device
from tests.e2e.onebox_process import demo_credentials, running_onebox
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, gateway

TOKEN_S = 12


async def refusal(device: JavaScriptDevice, within_s: float = 30) -> str:
    """Return the code with which `flush` fails, once it does."""
    async with asyncio.timeout(within_s):
        while True:
            await device.call("send")
            try:
                await device.call("flush", ms=1000)
            except DeviceError as error:
                if error.name == "DeviceRefused":
                    return str(error.code)


async def comes_back(at: Edge, file: Path, device: JavaScriptDevice, within_s: float = 40) -> None:
    """Return when the buffer is empty: a device with a function tries again, though it was refused."""
    async with asyncio.timeout(within_s):
        while (await device.call("state"))["pending"]:
            await asyncio.to_thread(file.write_text, await at.new_token())
            await asyncio.sleep(1)


@pytest.mark.timeout(180)
async def test_a_token_given_as_text_is_renewed_until_it_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against all of Tidegate, whose tokens last for 12 s, with receipts; a killed device goes on with the newest."""
    for name, value in {"BCRYPT_COST": "4", "DEVICE_TOKEN_SECONDS": str(TOKEN_S), "EXPIRING_SECONDS": "9"}.items():
        monkeypatch.setenv(name, value)
    async with (
        running_onebox("--devices", "0", data=tmp_path / "data") as (onebox, url),
        aiohttp.ClientSession() as http,
    ):
        bearer = await demo_bearer(http, url, tmp_path / "data")
        body = {"sensorType": "temperature", "location": "roof", "name": "d1"}
        async with http.post(f"{url}/devices", json=body, headers=bearer) as answer:
            number = (await answer.json())["id"]
        async with http.post(f"{url}/devices/{number}/token", headers=bearer) as answer:
            token = (await answer.json())["token"]
        began = time.monotonic()
        async with javascript_device(url, token, buffer=tmp_path / "readings.log", receipts=True) as device:
            await device.call("stream", everyMs=100)
            while time.monotonic() < began + 1.7 * TOKEN_S:
                await asyncio.sleep(1)
            await device.call("stream", everyMs=0)
            await device.call("flush", ms=10_000)
            query = {"device": number, "sensorType": "temperature", "limit": "1000"}
            async with http.get(f"{url}/readings", params=query, headers=bearer) as answer:
                values = [reading["value"] for reading in (await answer.json())["items"]]
            assert sorted(values) == sorted(device.kept)
            await device.kill()
        assert time.monotonic() > began + TOKEN_S, "the first token is still valid: this test proves nothing"
        first = 1 + max(device.offered)
        async with javascript_device(url, token, buffer=tmp_path / "readings.log", first=first) as device:
            await device.call("send")
            await device.call("flush", ms=10_000)
            async with http.delete(f"{url}/devices/{number}/tokens", headers=bearer) as answer:
                assert answer.status == 204
            assert await refusal(device) == "revoked"
            assert (await device.call("state"))["pending"] > 0, "its readings stay in the buffer"
        os.killpg(onebox.pid, signal.SIGKILL)


async def demo_bearer(http: aiohttp.ClientSession, url: str, data: Path) -> dict[str, str]:
    async with asyncio.timeout(30):
        while True:
            async with http.post(f"{url}/user/login", json=demo_credentials(data)) as answer:
                if answer.status == 200:  # the demo user signs up shortly after the first response
                    return {"Authorization": f"Bearer {(await answer.json())['accessToken']}"}
            await asyncio.sleep(0.1)


@pytest.mark.timeout(120)
async def test_a_function_is_asked_again_after_the_end_of_its_token(tmp_path: Path) -> None:
    """Expired while it still gives the old token, then revoked: each time it comes back with another."""
    async with edge(tmp_path, DEVICE_TOKEN_SECONDS="6") as at, at.gateway(EXPIRING_SECONDS="2") as running:
        file = tmp_path / "token"
        file.write_text(await at.new_token())
        async with javascript_device(at.url, file, buffer=tmp_path / "readings.log") as device:
            assert await refusal(device) == "expired"
            await comes_back(at, file, device)
            renewed = len(device.all_of("token"))
            stop = asyncio.get_running_loop().time() + 8  # longer than the token lasts
            while asyncio.get_running_loop().time() < stop:
                file.write_text(await at.new_token())
                await device.call("send")
                await asyncio.sleep(0.5)
            assert len(device.all_of("token")) > renewed
            await device.call("flush", ms=10_000)
            await at.revoke()
            file.write_text(await at.new_token())
            await device.call("stream", everyMs=50)
            for _ in range(16):
                file.write_text(await at.new_token())
                await asyncio.sleep(0.5)
            await device.call("stream", everyMs=0)
            await comes_back(at, file, device)
        await running.stop()
        stored = await at.stored()
        assert device.kept == stored.keys()


@pytest.mark.parametrize(("code", "claims"), [("expired", {"exp": 1_700_000_000}), ("forbidden", {"scope": "x"})])
async def test_a_refusal_for_good_keeps_the_readings(
    tmp_path: Path, fake_broker: FakeBroker, code: str, claims: dict[str, object]
) -> None:
    buffer = tmp_path / "readings.log"
    async with gateway(fake_broker) as running:
        async with javascript_device(running.url, ISSUING.device(**claims), buffer=buffer) as device:
            assert await refusal(device) == code
        async with javascript_device(running.url, ISSUING.device(), buffer=buffer, first=1000) as after:
            await after.call("flush", ms=10_000)
    assert published(fake_broker).keys() == device.kept
