"""`python -m onebox` as a user starts it: real sockets, a real mongod, real signals."""

import asyncio
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pymongo import MongoClient

from onebox.mongod import private_mongod
from testing.waiting import eventually
from tests.e2e.onebox_process import demo_credentials, demo_device, running_onebox, start_onebox, summary
from tests.integration.device import Identity, connected, readings


def csv_with_repeated_times(path: Path, rows: int) -> Path:
    lines = [
        f"2024-01-{1 + row // 1440 % 28:02}T{row // 60 % 24:02}:{row % 60:02}:00Z,{row / 8}" for row in range(rows)
    ]
    path.write_text("timestamp,value\n" + "\n".join([*lines, *lines[:12]]) + "\n")
    return path


async def stored_identities(data: Path) -> list[Identity]:
    async with private_mongod(data / "mongodb") as mongod:
        return await asyncio.to_thread(_identities, mongod.url)


def _identities(url: str) -> list[Identity]:
    with MongoClient[dict[str, Any]](url, tz_aware=True) as client:
        keys = [document["_id"] for document in client["tidegate"]["readings"].find({}, {"_id": 1})]
    return [(key["device"], key["sensorType"], round(key["ts"].timestamp() * 1000), int(key["seq"])) for key in keys]


def mongods_of(data: Path) -> list[str]:
    """Return the processes whose command line names this data folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if "mongod" in command and str(data) in command:
                found.append(command)
    return found


async def test_a_replay_stores_every_row_once_and_a_second_one_finds_them_all(tmp_path: Path) -> None:
    file = csv_with_repeated_times(tmp_path / "rows.csv", 3000)
    data = tmp_path / "data"
    first = await summary("--replay", str(file), "--port", "0", data=data)
    assert [first[key] for key in ("sent", "acked", "stored", "duplicates", "rejected", "lost")] == [3012] * 3 + [0] * 3
    second = await summary("--replay", str(file), "--port", "0", data=data)
    assert [second[key] for key in ("sent", "acked", "stored", "duplicates", "lost")] == [3012, 3012, 0, 3012, 0]
    assert len(set(await stored_identities(data))) == 3012
    assert not mongods_of(data)


async def test_live_devices_lose_nothing_and_the_run_ends_by_itself(tmp_path: Path) -> None:
    found = await summary("--devices", "20", "--rate", "10", "--seconds", "4", "--port", "0", data=tmp_path)
    assert found["lost"] == found["rejected"] == found["duplicates"] == 0
    assert found["sent"] == found["acked"] == found["stored"] > 400
    assert 0 < found["ackP50Ms"] <= found["ackP99Ms"]


async def test_what_was_acknowledged_survives_kill_minus_nine_of_the_process_group(
    tmp_path: Path, rng: random.Random
) -> None:
    promised: set[Identity] = set()
    for _ in range(3):
        async with running_onebox("--devices", "0", data=tmp_path) as (process, url):
            device, token = await demo_device(url, tmp_path)
            async with connected(url, token, device) as sender:
                start_at = len(promised)
                sending = [asyncio.ensure_future(sender.send(readings(start_at + n, 50))) for n in range(0, 20_000, 50)]
                while len(sender.acknowledged) < rng.randrange(1000, 6000):
                    await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.sleep(0)
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
                for task in sending:
                    task.cancel()
                await asyncio.gather(*sending, return_exceptions=True)
                promised |= sender.acknowledged
    await summary("--devices", "0", "--seconds", "1", "--port", "0", data=tmp_path)
    stored = await stored_identities(tmp_path)
    assert len(stored) == len(set(stored))
    assert promised <= set(stored), f"{len(promised - set(stored))} of {len(promised)} acknowledged readings are gone"


async def test_a_replay_that_was_killed_is_complete_after_a_second_start(tmp_path: Path) -> None:
    file = csv_with_repeated_times(tmp_path / "rows.csv", 20_000)
    data = tmp_path / "data"
    process = await start_onebox("--replay", str(file), "--port", "0", data=data)
    async with asyncio.timeout(30):
        while not (data / "queue.sqlite3-wal").exists() or (data / "queue.sqlite3-wal").stat().st_size < 500_000:
            await asyncio.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()
    again = await summary("--replay", str(file), "--port", "0", data=data)
    assert again["sent"] == again["acked"] == again["stored"] + again["duplicates"] == 20_012
    assert again["lost"] == 0
    stored = await stored_identities(data)
    assert len(stored) == len(set(stored)) == 20_012


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains_sums_up_and_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    async with running_onebox("--devices", "0", data=tmp_path) as (process, url):
        device, token = await demo_device(url, tmp_path)
        async with connected(url, token, device) as sender:
            await sender.send_until_accepted(readings(0, 1000))
            os.killpg(process.pid, number)  # as a terminal's Ctrl-C does: to everyone in the group
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        found = json.loads(out.splitlines()[-1])
        assert (found["accepted"], found["stored"], found["lost"]) == (1000, 1000, 0)
    assert not mongods_of(tmp_path)


async def test_without_devices_there_is_a_demo_user_too_however_often_it_starts(tmp_path: Path) -> None:
    for _ in range(2):
        async with (
            running_onebox("--devices", "0", data=tmp_path) as (process, url),
            aiohttp.ClientSession(url) as session,
        ):

            async def logs_in(session: aiohttp.ClientSession = session) -> bool:
                async with session.post("/user/login", json=demo_credentials(tmp_path)) as answer:
                    return answer.status == 200

            await eventually(logs_in, "the demo user logs in")
            process.send_signal(signal.SIGTERM)
            _, err = await process.communicate()
            assert (process.returncode, b"demo" in err.lower().replace(b"demo@", b"")) == (0, False), err


async def test_what_there_is_can_be_searched_by_the_names_of_the_devices(tmp_path: Path) -> None:
    async with running_onebox("--devices", "3", "--rate", "10", data=tmp_path) as (_, url):
        device, device_token = await demo_device(url, tmp_path)
        async with aiohttp.ClientSession(url) as session:
            async with session.post("/user/login", json=demo_credentials(tmp_path)) as answer:
                bearer = {"Authorization": f"Bearer {(await answer.json())['accessToken']}"}

            async def searched(text: str) -> Any:
                async with session.get("/series/search", params={"text": text}, headers=bearer) as answer:
                    assert answer.status == 200
                    return await answer.json()

            async def stream() -> bool:
                found = await searched("online")
                return found["total"] == found["online"] == 3 and all(item["latest"] for item in found["items"])

            await eventually(stream, "all devices are online and have sent")
            found = await searched("")
            assert (found["total"], found["devices"]) == (4, 4)
            assert all(item["name"] and item["registered"] for item in found["items"])
            (mine,) = (await searched("mine roof"))["items"]
            assert (mine["device"], mine["name"], mine["latest"], mine["connected"]) == (device, "mine", None, False)
            query = {"device": "mine", "sensorType": "temperature"}  # the name, which is no id
            async with session.get("/readings", params=query, headers=bearer) as answer:
                assert (answer.status, (await answer.json())["code"]) == (404, "no_such_device")
            headers = {"Authorization": f"Bearer {device_token}"}
            async with session.get("/series/search", headers=headers) as answer:
                assert answer.status == 403


async def test_pages_of_listed_origins_may_read_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://app.example")
    async with running_onebox("--devices", "0", data=tmp_path) as (_, url), aiohttp.ClientSession(url) as session:
        for origin, found in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
            for path in ("/user/me", "/devices", "/series", "/readings"):
                body = {"Origin": origin, "Access-Control-Request-Method": "GET"}
                async with session.options(path, headers=body) as answer:
                    assert (answer.status, answer.headers.get("Access-Control-Allow-Origin")) == (204, found)
                async with session.get(path, headers={"Origin": origin}) as answer:
                    assert (answer.status, answer.headers.get("Access-Control-Allow-Origin")) == (401, found)


async def test_settings_of_its_services_are_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "ACCESS_TOKEN_SECONDS": "120",
        "ADDRESS_SIGNUPS": "1",
        "ADDRESS_SIGNUP_SECONDS": "3600",
        "BCRYPT_COST": "4",
        "MAX_EVENT_BYTES": "100",
        "READINGS_DATABASE": "elsewhere",
        "TRUSTED_PROXIES": "127.0.0.1",
        "BROKER_URL": "amqp://rabbit.invalid",  # not this one
        "PORT": "1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    async with running_onebox("--devices", "0", data=tmp_path) as (process, url), aiohttp.ClientSession(url) as session:

        async def sign_up(name: str, address: str) -> int:
            body = {"name": name, "email": f"{name}@example.org", "password": "correct horse battery"}
            async with session.post("/user/signup", json=body, headers={"X-Forwarded-For": address}) as answer:
                return answer.status

        assert await sign_up("ada", "203.0.113.7:51234") == 201
        assert await sign_up("bob", "203.0.113.8:51234") == 201
        assert await sign_up("eve", "203.0.113.7:51235") == 429
        person = {"email": "ada@example.org", "password": "correct horse battery"}
        async with session.post("/user/login", json=person) as answer:
            found = await answer.json()
        assert found["expiresIn"] == 120
        bearer = {"Authorization": f"Bearer {found['accessToken']}", "X-Device-Id": "d"}
        for size, status in ((1, 202), (200, 413)):
            sent = {"sensorType": "t", "value": "x" * size, "ts": 1_750_000_000_000}
            async with session.post("/readings", json=sent, headers=bearer) as answer:
                assert answer.status == status
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
    assert json.loads(out)["stored"] == 1
    assert b"BROKER_URL" in err
    assert b"PORT" in err
    assert "elsewhere" in await databases(tmp_path)


async def databases(data: Path) -> list[str]:
    async with private_mongod(data / "mongodb") as mongod:
        with MongoClient[dict[str, Any]](mongod.url) as client:
            return await asyncio.to_thread(client.list_database_names)


async def test_where_nobody_may_sign_up_the_demo_user_streams_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNUP", "closed")
    monkeypatch.setenv("BCRYPT_COST", "4")
    for _ in range(2):
        found = await summary("--devices", "2", "--rate", "10", "--seconds", "1", "--port", "0", data=tmp_path)
        assert found["sent"] == found["acked"] == found["stored"] > 0
    async with running_onebox("--devices", "0", data=tmp_path) as (_, url), aiohttp.ClientSession(url) as session:
        body = {"name": "Ada", "email": "ada@example.org", "password": "correct horse battery"}
        async with session.post("/user/signup", json=body) as answer:
            assert answer.status == 403


async def test_a_secret_that_does_not_open_the_keys_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await summary("--devices", "0", "--seconds", "0.1", "--port", "0", data=tmp_path)
    monkeypatch.setenv("SIGNING_KEY_SECRET", "another one than before")
    process = await start_onebox("--devices", "0", "--seconds", "0.1", "--port", "0", data=tmp_path)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert "SIGNING_KEY_SECRET does not open" in err.decode().splitlines()[-1]
    assert "Traceback" not in err.decode()


async def test_a_second_onebox_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with running_onebox("--devices", "0", data=tmp_path) as (process, _):
        second = await start_onebox("--port", "0", data=tmp_path)
        _, err = await second.communicate()
        assert second.returncode == 1
        assert f"process {process.pid}" in err.decode()


async def test_a_port_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    async with running_onebox("--devices", "0", data=tmp_path / "one") as (_, url):
        second = await start_onebox("--port", url.rsplit(":", 1)[1], data=tmp_path / "other")
        out, err = await second.communicate()
        assert second.returncode == 1
        assert not out
        assert "Traceback" not in err.decode()
        assert url.rsplit(":", 1)[1] in err.decode().splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--devices", "-1"],
        ["--rate", "0"],
        ["--replay", "nowhere.csv"],
        ["--seconds", "nan"],
        ["--replay", __file__, "--devices", "0"],
        ["--x"],
    ],
)
async def test_a_wrong_argument_exits_with_two_and_says_which(tmp_path: Path, arguments: list[str]) -> None:
    process = await start_onebox(*arguments, data=tmp_path)
    _, err = await process.communicate()
    assert process.returncode == 2
    assert arguments[0] in err.decode()


async def test_a_file_with_a_bad_row_exits_with_two_and_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("timestamp,value\n2024-01-01T00:00:00Z,1\nsoon,2\n")
    process = await start_onebox("--replay", str(tmp_path / "bad.csv"), "--port", "0", data=tmp_path / "data")
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert "line 3" in err.decode()


async def test_secrets_are_for_their_user_only(tmp_path: Path) -> None:
    await summary("--devices", "0", "--seconds", "0.1", "--port", "0", data=tmp_path / "data")
    assert (tmp_path / "data" / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
