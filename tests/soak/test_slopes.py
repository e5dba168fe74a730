"""A leak has a slope, and noise has none; what is too short is not judged."""

import random
from typing import Any
from xml.etree import ElementTree

from tests.soak.plot import plot
from tests.soak.slopes import disk_line, lines, table

SETTLE_H = 0.5


def samples(hours: float, leak_mb: float = 0.0, *, run: int = 1, disk: float = 100.0) -> list[dict[str, Any]]:
    """Return samples every minute of a run whose gateway grows by so much an hour, after a steep start."""
    rng = random.Random(7)
    made = []
    for minute in range(round(hours * 60)):
        at = minute / 60
        start = 60e6 * min(1.0, at / 0.2)
        size = 80e6 + start + leak_mb * 1e6 * at + rng.uniform(-2e5, 2e5)
        gateway = {"bytes": size, "files": 1020 + rng.randrange(9), "threads": 5, "tasks": 2040 + rng.randrange(9)}
        readings = 30_000 * minute * run
        made.append(
            {"run": run, "hours": at, "processes": {"gateway": gateway}, "collections": 10 + minute % 2, "queue": 0}
            | {"lag": 0.07, "sealed": 1, "acknowledged": readings, "stored_bytes": disk * readings, "connected": 990}
        )
    return made


def verdict(name: str, found: list[dict[str, Any]]) -> str:
    return next(line.verdict for line in lines(found, SETTLE_H) if line.name == name)


def test_memory_that_only_grew_at_the_start_is_flat() -> None:
    assert verdict("memory of gateway", samples(2)) == "flat"


def test_a_leak_of_more_than_a_megabyte_an_hour_grows() -> None:
    assert verdict("memory of gateway", samples(2, leak_mb=1.5)) == "GROWS"
    assert verdict("memory of gateway", samples(2, leak_mb=0.5)) == "flat"


def test_a_leak_in_any_of_several_runs_is_one() -> None:
    assert verdict("memory of gateway", samples(2, leak_mb=1.5) + samples(2, run=2)) == "GROWS"
    assert verdict("memory of gateway", samples(2) + samples(2, run=2)) == "flat"


def test_a_new_run_starts_lower_which_is_no_slope() -> None:
    found = next(line for line in lines(samples(2) + samples(2, run=2), SETTLE_H) if line.name == "memory of gateway")
    assert all(slope is not None and abs(slope) < 0.5 for slope in found.slopes)


def test_a_run_of_minutes_is_not_judged() -> None:
    assert verdict("memory of gateway", samples(0.6, leak_mb=50)) == "too short"


def test_more_open_files_than_connections_explain_are_a_leak() -> None:
    found = samples(2)
    for sample in found:
        sample["processes"]["gateway"]["files"] += 40 * sample["hours"]
    assert verdict("files of gateway", found) == "GROWS"
    assert verdict("files of gateway", samples(2)) == "flat"


def test_disk_is_judged_a_reading_over_all_runs() -> None:
    found = samples(2) + samples(2, run=2)
    assert disk_line(found, SETTLE_H, 200).verdict == "flat"
    assert disk_line(samples(2, disk=300), SETTLE_H, 200).verdict == "GROWS"


def test_the_table_and_the_plot_show_every_quantity() -> None:
    found = samples(2, leak_mb=1.5)
    shown = table(lines(found, SETTLE_H))
    assert "memory of gateway" in shown
    assert "GROWS (MB)" in shown
    svg = ElementTree.fromstring(plot(found))  # noqa: S314 - made here
    assert len(svg.findall("{http://www.w3.org/2000/svg}polyline")) > 20
