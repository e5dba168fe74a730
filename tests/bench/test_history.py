"""The history benchmark: its verdicts can fail, its readings are those of the product, and a small run measures all."""

import json
import re
import subprocess
from pathlib import Path

import bson
import pytest
from bson import Int64
from bson.datetime_ms import DatetimeMS

from bench import versions
from bench.history import PARTS
from bench.history_comparison import BEGIN, COMMIT, END, Comparison, table, with_table
from bench.history_series import BATCH, OWNER, UNIT, Sensor, interleaved, measurements_of, sensors
from bench.plot import groups
from bench.processes import ROOT, BenchError
from bench.report import exit_code
from bench.versions import base_version
from readings.document import AS_MILLISECONDS, encode_document
from readings.reading import Reading
from storage.codec.to_documents import documents_of
from tests.bench.harness import leftover_processes, run_bench

READING = ("sizes", "year", "reads")
BESIDE = ("blocks", "erasure")


def verdicts(one: Comparison) -> list[str]:
    """Return the verdicts of its lines that have one."""
    return [figure.verdict for figure in one.figures() if figure.verdict]


@pytest.mark.parametrize(("now", "expected"), [(1.0, "holds"), (5.0, "holds"), (5.01, "FALLS SHORT")])
def test_a_ratio_may_not_exceed_its_goal(now: float, expected: str) -> None:
    one = Comparison("x", "ms", now, 100.0, at_most=0.05)
    assert verdicts(one) == [expected]
    assert exit_code(one.figures()) == (expected != "holds")


@pytest.mark.parametrize(("now", "expected"), [(399.0, "FALLS SHORT"), (400.0, "holds")])
def test_a_rate_must_be_so_many_times_the_other(now: float, expected: str) -> None:
    assert verdicts(Comparison("x", "rows/s", now, 100.0, at_least=4)) == [expected]


@pytest.mark.parametrize(("now", "expected"), [(4.0, "holds"), (4.1, "FALLS SHORT")])
def test_an_absolute_goal_needs_nothing_to_compare_with(now: float, expected: str) -> None:
    one = Comparison("x", "bytes", now, at_most=4.0, is_absolute=True)
    assert verdicts(one) == [expected]
    assert verdicts(Comparison("x", "bytes", now, 34.0, at_most=4.0, is_absolute=True)) == [expected]


def test_without_the_earlier_version_a_ratio_has_no_verdict() -> None:
    one = Comparison("x", "ms", 1.0, at_most=0.05)
    assert verdicts(one) == []
    assert one.row() == {"now": 1.0, "goal": 0.05}


def test_every_line_of_the_table_has_the_figure_of_each_and_the_verdict() -> None:
    one = Comparison("export", "rows/s", 900.0, 100.0, at_least=4, time_series=50.0)
    assert [figure.what for figure in one.figures()][1] == f"  {COMMIT}"
    row = table([one]).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["export, rows/s", "100.00", "900.00", "9.00 ×", "≥ 4 ×", "holds", "50.00"]


def test_the_table_replaces_the_one_before_and_nothing_else() -> None:
    document = f"# Title\n{BEGIN}\n\nold\n\n{END}\nrest\n"
    new = with_table(document, "| new |")
    assert new == f"# Title\n{BEGIN}\n\n| new |\n\n{END}\nrest\n"
    assert with_table(new, "| new |") == new
    with pytest.raises(ValueError, match="no place"):
        with_table("# Title\n", "| new |")


def test_the_page_about_performance_has_a_place_for_the_table() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert "| new |" in with_table(page, "| new |")


def test_bars_are_drawn_for_each_figure() -> None:
    drawn = groups("Title", {"a, ms": [("before", 10.0), ("now", 0.0)], "b": [("now", 5.0)]})
    widths = re.findall(r'<rect x="330" [^>]*width="([\d.]+)"', drawn)
    assert [float(width) for width in widths] == [450.0, 0.0, 450.0]


def test_columns_and_documents_of_a_sensor_are_those_of_readings() -> None:
    sensor = Sensor("device-1", "temperature", step_ms=1000, decimals=2)
    columns = sensor.next(3)
    later = sensor.next(1)
    assert int(later.ts[0]) > int(columns.ts[-1])
    for at, document in enumerate(documents_of(columns)):
        found = bson.decode(document, AS_MILLISECONDS)
        ts, received = (int(column[at]) for column in (columns.ts, columns.received))
        assert found["value"] == round(found["value"], 2)
        reading = Reading("temperature", found["value"], ts, 0, received, unit=UNIT)
        assert document == encode_document(OWNER, "device-1", reading)


def test_a_time_series_collection_gets_the_same_readings() -> None:
    sensor = Sensor("device-1", "temperature", step_ms=1000, decimals=None)
    columns = sensor.next(2)
    values = [bson.decode(document)["value"] for document in documents_of(columns)]
    for at, document in enumerate(measurements_of(columns, sensor.key)):
        assert bson.decode(document, AS_MILLISECONDS) == {
            "ts": DatetimeMS(int(columns.ts[at])),
            "series": sensor.key,
            "seq": Int64(0),
            "value": values[at],
            "receivedAt": DatetimeMS(int(columns.received[at])),
            "unit": UNIT,
        }


def test_batches_have_each_series_in_the_order_of_keys() -> None:
    some = sensors(10, step_ms=1000)
    assert [(one.device, one.sensor_type) for one in some] == sorted((one.device, one.sensor_type) for one in some)
    batches = [*interleaved([one.next(1000) for one in some])]
    assert [len(batch) for batch in batches] == [BATCH, BATCH, 2000]
    for batch in batches:
        keys = [bson.decode(document, AS_MILLISECONDS)["_id"] for document in batch]
        order = [(key["device"], key["sensorType"], int(key["ts"])) for key in keys]
        assert order == sorted(order)


def test_every_part_is_among_those_that_are_tried() -> None:
    assert sorted((*READING, "ingest", *BESIDE)) == sorted(PARTS)


def test_a_shallow_clone_measures_only_this_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "BASE", "0" * 40)
    with base_version(None, tmp_path) as base:
        assert base is None
    assert list(tmp_path.iterdir()) == []


def test_a_checkout_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="takes a checkout"), base_version(tmp_path, tmp_path):
        pass
    refused = run_bench("history", "--smoke", "--base", str(tmp_path))
    assert refused.returncode == 2
    assert "takes a checkout" in refused.stderr


@pytest.mark.parametrize("parts", [READING, ("ingest",), BESIDE], ids=["read", "ingest", "beside"])
def test_every_part_is_measured_and_leaves_nothing_behind(parts: tuple[str, ...]) -> None:
    done = run_bench("history", "--smoke", "--json", *(f"--only={part}" for part in parts))
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["about"]["parts"] == list(parts)
    assert leftover_processes() == []
    assert "tidegate-bench" not in _work_trees()
    verdict_count = sum(bool(figure["verdict"]) for figure in found["figures"])
    has_base = not found["notMeasured"]
    assert verdict_count == _expected(parts, has_base=has_base)
    for row in found["table"].values():
        assert row["now"] > 0
        assert row.get("before", 1) > 0


def _expected(parts: tuple[str, ...], *, has_base: bool) -> int:
    """Return how many verdicts a run has: those that need no earlier version, and those that do."""
    alone = {"sizes": 3, "ingest": 3 + 4, "blocks": 1}  # compaction's memory and rates; p99 through seals
    compared = {"year": 5 + 2, "reads": 6, "ingest": 2 + 2, "erasure": 1}
    return sum(alone.get(part, 0) + compared.get(part, 0) * has_base for part in parts)


def _work_trees() -> str:
    command = ["git", "worktree", "list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout
