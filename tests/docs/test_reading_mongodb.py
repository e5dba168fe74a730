"""Drivers read stored readings with the code of docs/reading-mongodb.md."""

import json
import re
import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import Int64, MaxKey, MinKey
from pymongo import MongoClient

from testing.node import node_with
from tests.docs.pages import block, page, run_json, write_file
from tests.reader.harness import TS, Mongo, make_reading, open_store
from tests.reader.query_plans import stages

HERE = Path(__file__).parent
PAGE = "reading-mongodb.md"
OWNERS, DEVICES, SENSORS = ("alice", "bob"), tuple(f"d-{n:02}" for n in range(10)), ("humidity", "temperature")
EACH = 50
SERIES = ("bob", "d-00", "humidity")  # half of all series come before it
START, END = TS + 10, TS + 30
BEYOND_DOUBLES = 2**60 + 1


@pytest.fixture(params=[False, True], ids=["ordinary", "clustered"])
def clustered(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def stored(mongodb_database: Mongo, clustered: bool) -> Mongo:
    """40 series of 50 readings, one a millisecond."""
    async with open_store(mongodb_database, clustered=clustered) as store:
        for owner in OWNERS:
            for device in DEVICES:
                for sensor in SENSORS:
                    readings = [make_reading(value(n), TS + n, n % 3, sensor=sensor) for n in range(EACH)]
                    await store.insert(*readings, device=device, owner=owner)
    return mongodb_database


def value(number: int) -> object:
    return {0: BEYOND_DOUBLES, 1: True, 2: "text"}.get(number, number / 4)


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def by_pymongo(stored: Mongo, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("READINGS_URL", stored[0])
    monkeypatch.setenv("READINGS_DATABASE", stored[1])
    return runpy.run_path(str(write_file(folder, "readings.py", block(PAGE, "Python: pymongo"))))


def test_pymongo_reads_a_series_its_newest_and_its_hours(
    stored: Mongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = by_pymongo(stored, tmp_path, monkeypatch)
    with code["client"]:
        whole = list(code["history"](*SERIES))
        assert [one["_id"]["ts"] for one in whole] == [at(TS + n) for n in range(EACH)]
        assert [one["value"] for one in whole] == [value(n) for n in range(EACH)]
        assert {tuple(one["_id"]) for one in whole} == {("owner", "device", "sensorType", "ts", "seq")}
        assert {type(one["_id"]["seq"]) for one in whole} == {Int64}
        assert {tuple(one["_id"].values())[:3] for one in whole} == {SERIES}
        part = list(code["history"](*SERIES, at(START), at(END)))
        assert [one["_id"]["ts"] for one in part] == [at(ms) for ms in range(START, END)]
        assert code["newest"](*SERIES)["value"] == value(EACH - 1)
        (hour,) = code["hourly"](*SERIES, at(START), at(END))
        assert (hour["_id"], hour["count"]) == (at(TS - TS % 3_600_000), END - START)
        assert hour["average"] == sum(n / 4 for n in range(10, 30)) / 20


def test_each_filter_is_answered_as_the_page_says(
    stored: Mongo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clustered: bool
) -> None:
    code = by_pymongo(stored, tmp_path, monkeypatch)
    names = dict(zip(("owner", "device", "sensorType"), SERIES, strict=True))
    whole = code["stretch"](*SERIES)
    cases: list[tuple[dict[str, Any], dict[str, int]]] = [
        (whole, {}),
        ({**whole, "value": {"$gt": 20}}, {}),
        (whole, {"_id": -1}),
        (whole, {"value": 1}),
        ({f"_id.{name}": field_value for name, field_value in names.items()}, {}),
        ({"value": {"$gt": 3}}, {}),
        ({"receivedAt": {"$gte": at(TS + 20)}}, {}),
        ({"_id": {"$gte": {**names, "ts": MinKey()}}}, {}),
    ]
    rows = re.findall(r"^\| (.*(?:`|direction)\W?.*) \| (`(?:IX|COLL)SCAN`.*) \| ([\d,]+)", page(PAGE), re.MULTILINE)
    assert len(rows) == len(cases), rows
    with code["client"]:
        for (text, plan, looked_at), (filter_, order) in zip(rows, cases, strict=True):
            found = code["readings"].find(filter_)
            explained = (found.sort(order) if order else found).explain()
            names_of = {stage["stage"] for stage in stages(explained["queryPlanner"]["winningPlan"])}
            scan = "IXSCAN" if "IXSCAN" in plan else "COLLSCAN"
            assert ("CLUSTERED_IXSCAN" if clustered and scan == "IXSCAN" else scan) in names_of, (text, names_of)
            assert ("SORT" in names_of) is ("SORT" in plan), (text, names_of)
            examined = explained["executionStats"]["totalDocsExamined"]
            assert abs(examined - int(looked_at.replace(",", ""))) <= 2, (text, examined)


@pytest.mark.parametrize("form", ["another order", "milliseconds", "text"])
def test_a_key_of_another_form_finds_nothing_without_an_error(stored: Mongo, form: str) -> None:
    names: dict[str, Any] = dict(zip(("owner", "device", "sensorType"), SERIES, strict=True))
    first, last = {"milliseconds": (TS, TS + 50), "text": ("2025", "2026")}.get(form, (MinKey(), MaxKey()))
    if form == "another order":
        names = dict(sorted(names.items()))
    client: MongoClient[dict[str, Any]]
    with MongoClient(stored[0]) as client:
        filter_ = {"_id": {"$gte": {**names, "ts": first}, "$lt": {**names, "ts": last}}}
        assert list(client[stored[1]]["readings"].find(filter_)) == []


NODE = """
import { client, stretch, history, newest } from "./readings.mjs";
const [series, start, end] = JSON.parse(process.env.ASKED);
const told = ({ _id, value }) => [...Object.values(_id), typeof value === "object" ? `Long ${value}` : value];
console.log(JSON.stringify({
  whole: (await history(...series).toArray()).map(told),
  part: (await history(...series, new Date(start), new Date(end)).toArray()).map(told),
  newest: told(await newest(...series)),
  plan: JSON.stringify(await history(...series).explain()),
}));
await client.close();
"""
MONGOOSE = """
import mongoose from "mongoose";
import { Reading, history } from "./readings.mjs";
const [series, start, end] = JSON.parse(process.env.ASKED);
const { MinKey, MaxKey } = mongoose.mongo;
await mongoose.connect(process.env.READINGS_URL, { dbName: process.env.READINGS_DATABASE });
const [owner, device, sensorType] = series;
const stretch = (from, to) => ({
  _id: { $gte: { owner, device, sensorType, ts: from }, $lt: { owner, device, sensorType, ts: to } },
});
const told = ({ _id, value }) => [...Object.values(_id), typeof value === "object" ? `Long ${value}` : value];
const whole = stretch(new MinKey(), new MaxKey());
console.log(JSON.stringify({
  whole: (await history(whole)).map(told),
  part: (await history(stretch(new Date(start), new Date(end)))).map(told),
  newest: told((await Reading.find(whole).sort({ _id: -1 }).limit(1).lean())[0]),
  plan: JSON.stringify(await Reading.find(whole).sort({ _id: 1 }).explain()),
  made: await mongoose.connection.listCollections(),
}));
await mongoose.disconnect();
"""


@pytest.mark.parametrize("package", ["mongodb", "mongoose"])
async def test_javascript_reads_a_series_and_its_newest(stored: Mongo, tmp_path: Path, package: str) -> None:
    heading, driver = {"mongodb": ("the driver", NODE), "mongoose": ("Mongoose", MONGOOSE)}[package]
    node = node_with(HERE, package)
    named = re.search(rf"install {package}` \(tried: ([\d.]+)\)", page(PAGE))
    assert named
    assert named[1] == json.loads((HERE / "package.json").read_text())["dependencies"][package]
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    write_file(tmp_path, "readings.mjs", block(PAGE, f"JavaScript: {heading}"))
    environment = {
        "READINGS_URL": stored[0],
        "READINGS_DATABASE": stored[1],
        "ASKED": json.dumps([SERIES, START, END]),
    }
    found = await run_json(node, str(write_file(tmp_path, "ask.mjs", driver)), environment=environment)

    def row_of(number: int) -> list[object]:
        known = f"Long {BEYOND_DOUBLES}" if number == 0 else value(number)
        written_as = at(TS + number).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return [*SERIES, written_as, number % 3, known]

    assert found["whole"] == [row_of(n) for n in range(EACH)]
    assert found["part"] == [row_of(n) for n in range(10, 30)]
    assert found["newest"] == row_of(EACH - 1)
    assert "IXSCAN" in found["plan"]
    assert {one["name"] for one in found.get("made", [])} <= {"readings", "series"}
