"""The dashboard bench: its evaluation, and a smoke run in a real browser."""

import json

from bench.dashboard import HORIZON_MS, SMOKE, draw_latency_figures, growth_figures
from bench.report import Figure
from bench.site import SENSORS
from bench.tab import MemoryUsage
from tests.bench.harness import leftover_processes, run_bench


def verdicts(figures: list[Figure]) -> dict[str, str]:
    return {figure.what.strip(): figure.verdict for figure in figures if figure.verdict}


def test_a_point_counts_from_its_acknowledgement_and_one_that_is_never_drawn_falls_short() -> None:
    acknowledged = [(1000, 1010.0), (1100, 1110.0), (1200, 1210.0)]
    figures = {
        figure.what.strip(): figure
        for figure in draw_latency_figures(acknowledged, {1000: 1510, 1100: 2110, 1200: 1410}, SMOKE)
    }
    assert figures["shown after their acknowledgement: p50"].value == 0.5
    assert figures["the slowest"].value == 1.0
    assert verdicts(list(figures.values())) == {"never shown": "holds", "the slowest": "holds"}
    found = verdicts(draw_latency_figures(acknowledged, {1000: 1510, 1100: 2111}, SMOKE))
    assert found == {"never shown": "FALLS SHORT", "the slowest": "FALLS SHORT"}


def test_where_nothing_is_drawn_it_is_not_quick() -> None:
    figures = {figure.what.strip(): figure for figure in draw_latency_figures([(1000, 1010.0)], {}, SMOKE)}
    assert figures["the slowest"].value == HORIZON_MS / 1000
    assert figures["never shown"].value == 1


def test_what_is_held_may_not_grow_from_the_first_minute_to_the_last() -> None:
    first = [
        MemoryUsage(10e6, 3000, 90, 100e6),
        MemoryUsage(10.2e6, 3010, 90, 101e6),
        MemoryUsage(9.9e6, 2990, 90, 99e6),
    ]
    more_listeners = [MemoryUsage(10e6, 3000, 96, 100e6)] * 3
    assert set(verdicts(growth_figures(first, first)).values()) == {"holds"}
    found = verdicts(growth_figures(first, more_listeners))
    assert [name.partition(":")[0] for name, verdict in found.items() if verdict != "holds"] == ["listeners"]


def test_a_smoke_run_measures_the_dashboard_in_a_real_browser_and_leaves_no_process_running() -> None:
    done = run_bench("dashboard", "--smoke", "--json")
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    figures = {figure["what"].strip(): figure for figure in found["figures"]}
    assert found["title"] == f"The dashboard with {SMOKE.series} series"
    assert SMOKE.series % len(SENSORS) == 0
    assert sum(figure["verdict"] != "" for figure in figures.values()) == 9
    assert figures["never shown"]["value"] == 0, done.stderr
    assert figures["scrolling, 3,000 px a second"]["value"] > 0
    assert figures["memory of the tab's process at most"]["value"] > figures["an empty tab's process"]["value"] > 0
    assert leftover_processes() == []
