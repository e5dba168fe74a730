"""Trials, against a reader that answers as the tests say."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from alarms.rules import trial
from alarms.rules.trial import Firing, Trial, Trials
from runtime.http.listen import listen
from runtime.http.problems import Problem
from runtime.times import rfc3339
from testing.waiting import eventually
from tests.alarms.making import START_MS, make_rule

NOW_MS = START_MS + 3_600_000


class Reader:
    """A reader: readings (ms since the start, value) by device, all of one sensorType."""

    def __init__(self) -> None:
        self.readings: dict[str, list[tuple[int, Any]]] = {}
        self.received: dict[int, str] = {}
        self.status = 200
        self.asked: list[dict[str, str]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.open = self.open_at_most = 0

    async def has_two(self) -> bool:
        return self.open == 2

    async def series(self, request: web.Request) -> web.Response:
        if self.status != 200:
            return web.json_response({}, status=self.status)
        names = sorted(self.readings)
        start = int(request.query.get("cursor", 0))
        items = [{"device": name, "sensorType": "temperature", "more": 1} for name in names[start : start + 2]]
        items.append({"device": "humid", "sensorType": "humidity"})
        after = {"nextCursor": str(start + 2)} if start + 2 < len(names) else {}
        return web.json_response({"items": items, **after})

    async def history(self, request: web.Request) -> web.Response:
        self.asked.append({**request.query, "token": request.headers["Authorization"]})
        self.open += 1
        self.open_at_most = max(self.open_at_most, self.open)
        await self.answers.wait()
        self.open -= 1
        lines = [
            json.dumps({"ts": rfc3339(START_MS + ts), "seq": 0, "value": value, "receivedAt": received})
            for ts, value in self.readings[request.query["device"]]
            for received in (self.received.get(ts),)
        ]
        return web.Response(text="".join(f"{line}\n" for line in lines))


@asynccontextmanager
async def trials_with(reader: Reader) -> AsyncIterator[Trials]:
    app = web.Application()
    app.add_routes([web.get("/series", reader.series), web.get("/readings", reader.history)])
    async with listen(app, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        yield Trials(session, lambda: f"http://127.0.0.1:{port}/")


async def tried(reader: Reader, names: dict[str, str] | None = None, **changes: Any) -> Trial:
    async with trials_with(reader) as trials:
        return await trials.run(make_rule(**changes), "token", names or {}, NOW_MS)


async def test_it_asks_for_the_last_day_with_the_owners_token_and_tells_when_it_would_have_fired() -> None:
    reader = Reader()
    reader.readings["press"] = [(0, 70), (1000, 81), (2000, 90), (3000, 79.9), (4000, 100)]
    found = await tried(reader)
    assert found.firings == [
        Firing("press", "temperature", START_MS + 1000, START_MS + 3000),
        Firing("press", "temperature", START_MS + 4000, None),
    ]
    assert (found.series, found.readings, found.complete) == (1, 5, True)
    (asked,) = reader.asked
    assert (asked["device"], asked["sensorType"], asked["format"]) == ("press", "temperature", "ndjson")
    assert (asked["from"], asked["token"]) == (rfc3339(NOW_MS - 86_400_000), "Bearer token")


async def test_series_of_every_page_whose_devices_it_names_are_tried() -> None:
    reader = Reader()
    reader.readings = {name: [(0, 99)] for name in "abcde"}
    found = await tried(reader, {"a": "press 1", "b": "lathe", "d": "press 2"}, devices={"name": "press*"})
    assert [one.device for one in found.firings] == ["a", "d"]
    found = await tried(reader, devices={"ids": ["e", "c"]})
    assert [one.device for one in found.firings] == ["c", "e"]


async def test_a_silence_is_found_between_readings_and_behind_the_last() -> None:
    reader = Reader()
    reader.readings["press"] = [(0, 1), (10_000, 1), (100_000, 1)]
    found = await tried(reader, when={"op": "silent"}, forSeconds=60)
    assert [(one.from_ms - START_MS, one.to_ms and one.to_ms - START_MS) for one in found.firings] == [
        (70_000, 100_000),
        (160_000, None),
    ]


async def test_a_silence_goes_by_when_readings_were_received() -> None:
    reader = Reader()
    reader.readings["press"] = [(0, 1), (10_000, 1), (20_000, 1)]
    reader.received = {0: rfc3339(NOW_MS - 30_000), 10_000: rfc3339(NOW_MS - 200_000), 20_000: rfc3339(NOW_MS - 90_000)}
    found = await tried(reader, when={"op": "silent"}, forSeconds=60)
    assert [(one.from_ms - NOW_MS, one.to_ms and one.to_ms - NOW_MS) for one in found.firings] == [(-140_000, -90_000)]


async def test_beyond_its_bounds_it_is_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    reader.readings = {name: [(0, 99), (1000, 1), (2000, 99)] for name in "abc"}
    monkeypatch.setattr(trial, "MAX_SERIES", 2)
    found = await tried(reader)
    assert (found.series, found.complete) == (2, False)
    monkeypatch.setattr(trial, "MAX_SERIES", 100)
    monkeypatch.setattr(trial, "MAX_READINGS", 4)
    found = await tried(reader)
    assert (found.series, found.readings, found.complete) == (2, 4, False)


@pytest.mark.parametrize(
    ("status", "expected", "code"), [(401, 403, "forbidden"), (403, 403, "forbidden"), (503, 503, "unavailable")]
)
async def test_what_the_reader_refuses(status: int, expected: int, code: str) -> None:
    reader = Reader()
    reader.status = status
    with pytest.raises(Problem) as failed:
        await tried(reader)
    assert (failed.value.status, failed.value.code) == (expected, code)


async def test_an_owner_has_one_at_a_time_and_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MAX_WAIT_S", 0.2)
    reader = Reader()
    reader.readings["press"] = [(0, 99)]
    reader.answers.clear()
    async with trials_with(reader) as trials:
        ada, bob = make_rule(), make_rule(owner="bob")
        running = [asyncio.create_task(trials.run(one, "token", {}, NOW_MS)) for one in (ada, bob)]
        await eventually(reader.has_two, "both are being tried")
        with pytest.raises(Problem) as failed:
            await trials.run(ada, "token", {}, NOW_MS)
        assert (failed.value.status, failed.value.headers) == (503, {"Retry-After": "2"})
        reader.answers.set()
        assert [len((await one).firings) for one in running] == [1, 1]
        assert len((await trials.run(ada, "token", {}, NOW_MS)).firings) == 1
    assert reader.open_at_most == 2


async def test_a_silence_counts_within_the_hours_of_its_rule() -> None:
    reader = Reader()
    # From 2023-11-14, 22:13:20 UTC, on.
    reader.readings["press"] = [(0, 1), (300_000, 1), (1_200_000, 1)]
    hours = {"zone": "UTC", "days": ["tue"], "from": "22:20", "to": "22:40"}
    found = await tried(reader, when={"op": "silent"}, forSeconds=60, schedule=hours)
    assert [(one.from_ms - START_MS, one.to_ms and one.to_ms - START_MS) for one in found.firings] == [
        (400_000, 1_200_000),
        (1_260_000, None),
    ]
    hours = {"zone": "UTC", "days": ["sun"], "from": "00:00", "to": "24:00"}
    assert (await tried(reader, when={"op": "silent"}, forSeconds=60, schedule=hours)).firings == []
