"""Exports sent back in every form are stored and exported again unchanged, on whole oneboxes."""

import asyncio
import gzip
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from onebox.demo import DEMO_EMAIL
from testing.waiting import eventually
from tests.e2e.onebox_process import ROOT, demo_credentials, running_onebox, summary

DEVICE, SENSOR = "press:1", "mixed"
TS = 1_750_000_000_000
VALUES = [
    *(0, -1, 2**31, -(2**63), 2**63 - 1, 9007199254740993, 0.5, 1.0, -0.0, 1e16, 1e22, 5e-324, 1.7976931348623157e308),
    *(
        True,
        False,
        "1",
        "1.0",
        "-5",
        "true",
        "",
        " ",
        "NA",
        "NaN",
        "=1+1",
        "a,b",
        'say "x"',
        "# end 3",
        "device",
        "\u00e4\u2028",
    ),
]
FIELDS: list[dict[str, Any]] = [
    {},
    {"unit": "\u00b0C", "location": 'hall "3", left', "tags": {"b": "1,2", "a": 'x"y'}},
    {"unit": "", "location": ""},
    {"location": {"lat": 48.1, "lon": -11.5}},
    {"location": {"lat": 1, "lon": 2, "alt": 520.25}},
    {"location": '{"lat":48.1,"lon":-11.5}'},
    {"location": '{"lat":1,"lon":2}'},
    {"location": '"{\\"lat\\":48.1,\\"lon\\":-11.5}"'},
    {"tags": {}},
    {"tags": {"z": "1", "a": "2"}, "unit": "m/s, squared"},
    {"quality": "good"},
    {"quality": "bad", "location": "", "tags": {"a": ""}},
]


def readings() -> list[dict[str, Any]]:
    """Values of every kind, with all optional fields, and some whose time and seq a gateway assigns."""
    timed = [
        {"sensorType": SENSOR, "value": value, "ts": TS + number // 2, "seq": number % 2 * (2**52 - 1), **fields}
        for number, (value, fields) in enumerate((value, fields) for value in VALUES for fields in FIELDS)
    ]
    return timed + [{"sensorType": SENSOR, "value": value, **FIELDS[1]} for value in VALUES]


class DemoUser:
    """The demo user of a running onebox."""

    def __init__(self, http: aiohttp.ClientSession, token: str) -> None:
        self._http = http
        self.token = token
        self._bearer = {"Authorization": f"Bearer {token}"}

    async def send(self, body: bytes, kind: str, device: str = DEVICE) -> None:
        headers = self._bearer | {"X-Device-Id": device, "Content-Type": kind}
        async with self._http.post("/readings", data=body, headers=headers) as answer:
            assert (answer.status, (await answer.json())["rejected"]) == (202, [])

    async def export(self, format_: str, **names: str) -> bytes:
        query = (names or {"device": DEVICE, "sensorType": SENSOR}) | {"format": format_}
        query |= {"end": "true"} if format_ != "parquet" else {}
        async with self._http.get("/readings", params=query, headers=self._bearer) as answer:
            if answer.status == 404:  # nothing is stored of it yet
                assert (await answer.json())["code"] == "no_such_device"
                return b""
            assert answer.status == 200
            return await answer.read()

    async def whole_export(self, format_: str, count: int, **names: str) -> bytes:
        """Return the export once it has this many readings."""
        last = f"# end {count}\r\n" if format_ == "csv" else f'{{"end":true,"count":{count}}}\n'

        async def whole() -> bool:
            return (await self.export(format_, **names)).endswith(last.encode())

        await eventually(whole, f"all {count} readings are stored")
        return await self.export(format_, **names)


async def log_in(http: aiohttp.ClientSession, data: Path) -> DemoUser:
    person = demo_credentials(data)
    found: dict[str, str] = {}

    async def logged_in() -> bool:
        async with http.post("/user/login", json=person) as answer:
            found.update(await answer.json() if answer.status == 200 else {})
            return answer.status == 200

    await eventually(logged_in, "the demo user logs in")
    return DemoUser(http, found["accessToken"])


def as_stored(ndjson: bytes) -> list[str]:
    """The readings of an export with the types of their values, without their times of receipt."""
    items = [json.loads(line) for line in ndjson.splitlines()[:-1]]
    for item in items:
        del item["receivedAt"]
    return [repr(item) for item in items]


async def requeue(user: DemoUser, ndjson: bytes) -> None:
    lines = ndjson.splitlines(keepends=True)[:-1]
    for start in range(0, len(lines), 300):
        await user.send(b"".join(lines[start : start + 300]), "application/x-ndjson")


async def import_export(data: Path, url: str, *files: Path) -> dict[str, Any]:
    """Import files as the demo user, and return the summary."""
    person = demo_credentials(data)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulator", "import", "--url", url, "--email", person["email"], "--json"),
        *map(str, files),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"TIDEGATE_PASSWORD": person["password"]},
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
async def original(tmp_path: Path) -> tuple[bytes, bytes]:
    """Export NDJSON and CSV of the same readings; sending them back to their source changes nothing."""
    sent = readings()
    async with running_onebox("--devices", "0", data=tmp_path / "a") as (_, url), aiohttp.ClientSession(url) as http:
        user = await log_in(http, tmp_path / "a")
        for start in range(0, len(sent), 200):
            await user.send(json.dumps(sent[start : start + 200]).encode(), "application/json")
        ndjson = await user.whole_export("ndjson", len(sent))
        csv = await user.whole_export("csv", len(sent))
        values = [repr(item["value"]) for item in map(json.loads, ndjson.splitlines()[:-1]) if item["seq"] < 2**52]
        assert values == [repr(item["value"]) for item in sent if "ts" in item]
        await requeue(user, ndjson)
        (tmp_path / "export.ndjson.gz").write_bytes(gzip.compress(ndjson))
        (tmp_path / "export.parquet").write_bytes(await user.export("parquet"))
        files = tmp_path / "export.ndjson.gz", tmp_path / "export.parquet"
        counts = await import_export(tmp_path / "a", url, *files)
        assert [counts[name] for name in ("accepted", "rejected", "unsent")] == [2 * len(sent), 0, 0]
        await user.send(
            json.dumps({"sensorType": SENSOR, "ts": TS + 10**6, "value": "later"}).encode(), "application/json"
        )
        again = await user.whole_export("ndjson", len(sent) + 1)
        known = set(ndjson.splitlines()[:-1])
        assert [line for line in again.splitlines()[:-1] if line not in known] == [
            again.splitlines()[len(sent) - len(VALUES)]
        ]
    return ndjson, csv


async def test_an_export_goes_back_in_over_http_through_an_import_and_through_a_replay(
    original: tuple[bytes, bytes], tmp_path: Path
) -> None:
    ndjson, csv = original
    count = len(readings())
    async with running_onebox("--devices", "0", data=tmp_path / "b") as (_, url), aiohttp.ClientSession(url) as http:
        user = await log_in(http, tmp_path / "b")
        await import_export(tmp_path / "b", url, tmp_path / "export.parquet")
        assert as_stored(await user.whole_export("ndjson", count)) == as_stored(ndjson)
        await requeue(user, ndjson)
        assert as_stored(await user.whole_export("ndjson", count)) == as_stored(ndjson)
    file = tmp_path / "export.csv"
    file.write_bytes(csv)
    for stored, duplicates in ((count, 0), (0, count)):
        counts = await summary("--replay", str(file), "--port", "0", data=tmp_path / "c")
        assert [counts[name] for name in ("sent", "acked", "rejected", "lost")] == [count, count, 0, 0]
        assert (counts["stored"], counts["duplicates"]) == (stored, duplicates)
    async with running_onebox("--devices", "0", data=tmp_path / "c") as (_, url), aiohttp.ClientSession(url) as http:
        user = await log_in(http, tmp_path / "c")
        assert as_stored(await user.whole_export("ndjson", count)) == as_stored(ndjson)


async def test_one_export_of_everything_is_replayed_as_the_devices_and_sensor_types_that_it_names(
    tmp_path: Path,
) -> None:
    everything = {"from": "2000-01-01T00:00:00Z"}
    devices, sensors = ("press:1", "press:10", "press:2"), ("mixed", "temperature")
    sent = [
        {"sensorType": sensor, "value": value, "ts": TS + number, **FIELDS[number % len(FIELDS)]}
        for number, value in enumerate(VALUES)
        for sensor in sensors
    ]
    count = len(sent) * len(devices)
    async with running_onebox("--devices", "0", data=tmp_path / "a") as (_, url), aiohttp.ClientSession(url) as http:
        user = await log_in(http, tmp_path / "a")
        for device in devices:
            await user.send(json.dumps(sent).encode(), "application/json", device)
        csv = await user.whole_export("csv", count, **everything)
        ndjson = await user.whole_export("ndjson", count, **everything)
    file = tmp_path / "export.csv"
    file.write_bytes(csv)
    counts = await summary("--replay", str(file), "--port", "0", data=tmp_path / "b")
    assert [counts[name] for name in ("sent", "acked", "stored", "lost")] == [count, count, count, 0]
    async with running_onebox("--devices", "0", data=tmp_path / "b") as (_, url), aiohttp.ClientSession(url) as http:
        user = await log_in(http, tmp_path / "b")
        again = await user.whole_export("ndjson", count, **everything)
    assert as_stored(again) == as_stored(ndjson)
    keys = [(item["device"], item["sensorType"], item["ts"]) for item in map(json.loads, again.splitlines()[:-1])]
    assert keys == sorted(keys)


async def test_the_commands_of_the_readme_give_an_export_back(tmp_path: Path) -> None:
    (commands,) = re.findall(r"```\n(curl [^`]*split -l 1000[^`]*)```", (ROOT / "README.md").read_text())
    commands = commands.replace("temperature", SENSOR).replace("me@example.com", DEMO_EMAIL)
    sent = readings()
    async with running_onebox("--devices", "0", data=tmp_path / "a") as (_, url), aiohttp.ClientSession(url) as http:
        user = await log_in(http, tmp_path / "a")
        await user.send(json.dumps(sent[:100]).encode(), "application/json")
        (tmp_path / "readings.csv").write_bytes(await user.whole_export("csv", 100))
        # As a reader has them: variables of the shell, that its programs do not see.
        commands = f"URL={url} TOKEN={user.token} DEVICE={DEVICE}\n" + commands
        process = await asyncio.create_subprocess_exec(
            "bash", "-ec", commands, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {
                "PYTHONPATH": str(ROOT),
                "TIDEGATE_PASSWORD": demo_credentials(tmp_path / "a")["password"],
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        assert '{"accepted":100,"rejected":[]}' in out.decode()
        assert "sent 100 readings, acknowledged 100 (100 accepted, 0 rejected), 0 not acknowledged" in out.decode()
        assert (await user.whole_export("csv", 100)) == (tmp_path / "readings.csv").read_bytes()


async def test_a_onebox_replays_with_every_option_of_a_replay(tmp_path: Path) -> None:
    file = tmp_path / "plant.csv"
    rows = ['2026-01-01 00:00:00.000001+00:00,"1,5",bar', "2026-01-01 00:00:00.000002+00:00,2,bar"]
    file.write_text("\n".join(["when,what,u", *rows, "2026-01-01 00:00:00.000003+00:00,3,bar"]) + "\n")
    options = ("--replay", str(file), "--time-column", "when", "--value-column", "what", "--unit-column", "u")
    counts = await summary(
        *options, "--sensor-type", "pressure", "--missing", "1,5", "--port", "0", data=tmp_path / "data"
    )
    assert [counts[name] for name in ("sent", "acked", "stored", "lost")] == [2, 2, 2, 0]
