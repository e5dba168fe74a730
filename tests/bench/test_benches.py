"""The benches run, and their output has the documented form."""

import json
import os
import shutil

import pytest

from bench.report import Figure, exit_code
from tests.bench.harness import ROOT, leftover_processes, run_bench

NODE = ROOT / "bench" / "peers" / "node"


def test_the_benches_are_listed_with_what_they_measure() -> None:
    listed = run_bench("--help")
    assert listed.returncode == 0
    assert "gateway" in listed.stdout
    assert "load" not in [line.split()[0] for line in listed.stdout.splitlines()[1:]]


def test_an_unknown_bench_is_a_usage_error() -> None:
    unknown = run_bench("nothing")
    assert unknown.returncode == 2
    assert "'nothing'" in unknown.stderr


@pytest.mark.parametrize(
    ("bench", "option", "value"),
    [
        ("pipeline", "--rounds", "0"),
        ("pipeline", "--seconds", "nan"),
        ("sparse", "--rounds", "-1"),
        ("storm", "--devices", "0"),
        ("start", "--rounds", "-1"),
        ("pythons", "--rounds", "0"),
        ("auth_logins", "--rounds", "0"),
        ("auth_logins", "--seconds", "-1"),
        ("auth_logins", "--cost", "3"),
        ("drain", "--readings", "0"),
        ("reader", "--readings", "-1"),
        ("exports", "--size", "0"),
        ("blocks", "--data", "/nowhere"),
    ],
)
def test_a_number_or_folder_that_cannot_be_measured_is_a_usage_error(bench: str, option: str, value: str) -> None:
    done = run_bench(bench, f"{option}={value}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"python -m bench {bench}: error: argument {option}: ")


def test_a_figure_holds_up_to_its_limit() -> None:
    assert [Figure("x", value, "x", 2.0).verdict for value in (1.0, 2.0, 2.1)] == ["holds", "holds", "FALLS SHORT"]
    assert Figure("x", 1.0, "x").verdict == ""


def test_a_figure_holds_from_its_least() -> None:
    verdicts = [Figure("x", value, "x", at_least=2.0).verdict for value in (1.9, 2.0, 2.1)]
    assert verdicts == ["FALLS SHORT", "holds", "holds"]


def test_one_figure_that_falls_short_is_the_exit_code_of_all() -> None:
    assert exit_code([Figure("a", 1, "x", 2), Figure("b", 9, "x")]) == 0
    assert exit_code([Figure("a", 1, "x", 2), Figure("b", 9, "x", at_least=10)]) == 1


def test_the_devices_bench_measures_the_library_beside_the_bare_client() -> None:
    done = run_bench("devices", "--smoke", "--json")
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert [figure["limit"] for figure in report["figures"] if figure["limit"] is not None] == [1.5, 0.3]
    assert all(figure["value"] > 0 for figure in report["figures"])
    assert leftover_processes() == []


def test_the_provisioning_bench_measures_both_ways() -> None:
    done = run_bench("provisioning", "--smoke", "--json")
    assert done.returncode in (0, 1), done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert [figure["at_least"] for figure in figures if figure["at_least"] is not None] == [20]
    assert all(figure["value"] > 0 for figure in figures)
    assert leftover_processes() == []


def test_the_alarms_bench_measures_rules_beside_the_pipeline_and_silences_in_the_service() -> None:
    done = run_bench("alarms", "--smoke", "--json")
    assert done.returncode in (0, 1), done.stderr
    figures = json.loads(done.stdout)["figures"]
    asked = [figure["limit"] for figure in figures if figure["limit"] is not None]
    assert asked == [1.0, 1.0, 1.0, 1.02, 1.02, 500.0, 500.0, 5.0, 1.0, 500.0, 5.0]
    (webhooks,) = [figure["value"] for figure in figures if figure["unit"] == "webhooks"]
    assert webhooks > 0
    assert leftover_processes() == []


def test_the_quick_alarms_bench_needs_no_servers() -> None:
    done = run_bench("alarms", "--smoke", "--quick", "--json")
    assert done.returncode in (0, 1), done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert [figure["limit"] for figure in figures if figure["limit"] is not None] == [1.0, 500.0, 5.0]
    assert leftover_processes() == []


@pytest.mark.skipif(
    not (NODE / "node_modules").exists() and not os.environ.get("CI"), reason="its packages are not installed yet"
)
def test_the_gateway_bench_measures_every_part_with_its_peers_and_leaves_no_process_running() -> None:
    assert shutil.which("node")
    done = run_bench("gateway", "--smoke", "--json")
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    checked = [figure for figure in report["figures"] if figure["limit"] is not None]
    assert len(checked) == 9
    assert all(figure["value"] > 0 and figure["verdict"] in ("holds", "FALLS SHORT") for figure in checked)
    assert leftover_processes() == []


@pytest.mark.skipif(
    not (NODE / "node_modules").exists() and not os.environ.get("CI"), reason="its packages are not installed yet"
)
def test_the_sparse_bench_measures_events_and_idle_connections_beside_node_and_the_commit() -> None:
    done = run_bench("sparse", "--smoke", "--json")
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    asked = [figure["limit"] or figure["at_least"] for figure in report["figures"] if figure["verdict"]]
    # Without the commit, as in a shallow clone, there is nothing to compare with.
    assert asked == ([4, 4, 0.8, 1] if report["notMeasured"] else [0.6, 4, 0.6, 4, 0.8, 1])
    assert all(one.startswith("Tidegate, commit") for one in report["notMeasured"])
    assert leftover_processes() == []


@pytest.mark.skipif(
    not (NODE / "node_modules").exists() and not os.environ.get("CI"), reason="its packages are not installed yet"
)
def test_the_storm_bench_measures_a_connected_device_while_others_connect() -> None:
    done = run_bench("storm", "--smoke", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ours = [figure["value"] for figure in report["figures"] if figure["what"].endswith(": Tidegate")]
    assert len(ours) == 4
    assert all(value > 0 for value in ours)
    assert leftover_processes() == []
