"""What a onebox answers does not change when its readings become blocks."""

import asyncio
import csv
import io
import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow.parquet
import pytest
from pymongo import MongoClient

from onebox.mongod import private_mongod
from readings.document import AS_MILLISECONDS
from tests.e2e.onebox_process import demo_credentials, running_onebox, summary

ROWS = 12_000
START = datetime(2024, 3, 25, tzinfo=UTC)
# Days of 23 hours, hours that two blocks share, and buckets that are finer than an hour.
BUCKETS = (
    {"every": "1h"},
    {"every": "1d", "zone": "Europe/Berlin"},
    {"every": "1M", "zone": "Asia/Kolkata"},
    {"every": "15m", "from": "2024-03-28T10:10:00Z", "to": "2024-04-02T10:10:00Z"},
    {"every": "1w", "values": "all"},
)


def write_csv(path: Path, rng: random.Random) -> list[str]:
    """Write a recording of a reading each five minutes; return the values as they are written."""
    values = [repr(round(80 + 10 * math.sin(row / 50) + rng.gauss(0, 2), rng.choice([2, 15]))) for row in range(ROWS)]
    lines = (f"{START + timedelta(minutes=5 * row):%Y-%m-%d %H:%M:%S},{value}" for row, value in enumerate(values))
    path.write_text("timestamp,value\n" + "\n".join(lines) + "\n")
    return values


class Owner:
    """The demo user of a running onebox, and the series of its device."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._series: dict[str, str] = {}

    async def log_in(self, data: Path) -> None:
        async with self._session.post("/user/login", json=demo_credentials(data)) as answer:
            self._session.headers["Authorization"] = f"Bearer {(await answer.json())['accessToken']}"
        (series,) = (await self.json("/series"))["items"]
        self._series = {name: series[name] for name in ("device", "sensorType")}

    async def body(self, path: str, **query: str) -> bytes:
        async with self._session.get(path, params=self._series | query) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    async def json(self, path: str, **query: str) -> Any:
        return json.loads(await self.body(path, **query))

    async def pages(self, order: str) -> list[Any]:
        found, query = [], {"order": order, "limit": "1000"}
        while True:
            page = await self.json("/readings", **query)
            found += page["items"]
            if "nextCursor" not in page:
                return found
            query["cursor"] = page["nextCursor"]

    async def everything(self) -> dict[str, Any]:
        """Return each kind of answer about the series."""
        return {
            "pages": await self.pages("asc"),
            "backwards": await self.pages("desc"),
            "csv": list(csv.reader(io.StringIO((await self.body("/readings", format="csv")).decode(), newline=""))),
            "ndjson": [json.loads(line) for line in (await self.body("/readings", format="ndjson")).splitlines()],
            "parquet": pyarrow.parquet.read_table(
                io.BytesIO(await self.body("/readings", format="parquet"))
            ).to_pylist(),
            "latest": await self.json("/readings/latest"),
            "buckets": [(await self.json("/readings/buckets", **query))["items"] for query in BUCKETS],
        }


@pytest.mark.fuzz
async def test_nothing_that_is_answered_changes_when_everything_is_compacted(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, data = write_csv(tmp_path / "rows.csv", rng), tmp_path / "data"
    monkeypatch.setenv("SEALING", "off")
    await summary("--devices", "1", "--replay", str(tmp_path / "rows.csv"), "--port", "0", data=data)
    before = await everything_of(data)
    monkeypatch.setenv("SEALING", "on")
    monkeypatch.setenv("SEAL_READINGS", "2000")
    async with running_onebox("--devices", "0", data=data) as (_, url), asyncio.timeout(60):
        async with aiohttp.ClientSession(url) as session:
            owner = Owner(session)
            await owner.log_in(data)
            during = await owner.everything()
        await asyncio.sleep(5)
    after = await everything_of(data)
    assert await documents(data) == (0, 0), "everything is in blocks and pieces"
    assert [float(reading["value"]) for reading in before["pages"]] == [float(value) for value in values]
    assert len(before["csv"]) == len(before["ndjson"]) + 1 == ROWS + 1
    for found in (during, after):
        assert found.pop("buckets") == [same_but_for_averages(each) for each in before["buckets"]]
        assert found == {name: answer for name, answer in before.items() if name != "buckets"}


def same_but_for_averages(buckets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return buckets that are equal to others whose averages differ by 1e-12 at most."""
    return [
        {name: pytest.approx(value, rel=1e-12, abs=0) if name == "avg" else value for name, value in each.items()}
        | ({"numbers": same_but_for_averages([each["numbers"]])[0]} if "numbers" in each else {})
        for each in buckets
    ]


async def everything_of(data: Path) -> dict[str, Any]:
    async with running_onebox("--devices", "0", data=data) as (_, url), aiohttp.ClientSession(url) as session:
        owner = Owner(session)
        await owner.log_in(data)
        return await owner.everything()


async def documents(data: Path) -> tuple[int, int]:
    """Return how many readings are in `readings`, and how many sealed collections there are."""
    async with private_mongod(data / "mongodb") as mongod:
        return await asyncio.to_thread(_documents, mongod.url)


def _documents(url: str) -> tuple[int, int]:
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_database("tidegate", codec_options=AS_MILLISECONDS)
        sealed = [name for name in database.list_collection_names() if name.startswith("readings.sealed.")]
        return database["readings"].count_documents({}), len(sealed)
