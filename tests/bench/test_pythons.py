"""The bench of Pythons: it measures what it can get, and its verdict is on the image's Python, against the cheapest."""

import json
from pathlib import Path

import pytest

from bench import pythons
from bench.measurements import Measurement
from bench.processes import ROOT, BenchError
from bench.pythons import Found, figures_of, image_version, prepare
from testing.servers.debian import NotAvailableError
from tests.bench.harness import leftover_processes, run_bench


def turns(*gateway_us: float) -> list[Measurement]:
    return [
        Measurement({"gateway": us, "persister": 3.0, "RabbitMQ": 4.0, "mongod": 5.0}, 1.0, 1000) for us in gateway_us
    ]


def verdicts(found: Found, image: str) -> dict[str, str]:
    return {figure.what: figure.verdict for figure in figures_of(found, image) if figure.verdict}


def test_the_images_python_is_judged_against_the_cheapest_of_its_kind() -> None:
    systems = {
        "Python 3.11.2": turns(9, 7, 8),
        "Python 3.13.5": turns(9),
        "Python 3.11.2, compiled": turns(7),
        "Python 3.13.5, compiled": turns(6),
        # Another build of Python, or another C library, is shown and not judged.
        "Python 3.11.7 of this machine": turns(1),
    }
    assert verdicts({"W1": systems}, "3.13") == {
        "the image's Python 3.13, of the cheapest": "FALLS SHORT",
        "the image's Python 3.13, compiled, of the cheapest": "holds",
    }


def test_without_another_python_there_is_nothing_to_judge() -> None:
    assert verdicts({"W1": {"Python 3.13.5": turns(9)}}, "3.13") == {}
    assert verdicts({"W1": {"Python 3.11.2": turns(9), "Python 3.14.8": turns(9)}}, "3.13") == {}


def test_what_runs_on_the_python_is_what_is_compared() -> None:
    figures = figures_of({"W1": {"Python 3.11.2": turns(9, 7, 8), "Python 3.14.8": turns(11)}}, "3.13")
    found = {figure.what: figure.value for figure in figures}
    assert found["Python 3.11.2: gateway and persister"] == 11
    assert found["Python 3.14, of 3.11's"] == pytest.approx(14 / 11)


def test_the_image_has_one_python() -> None:
    assert image_version((ROOT / "Dockerfile").read_text()) in pythons.SUITES
    with pytest.raises(BenchError):
        image_version("FROM python:3.13-slim AS packages\nFROM python:3.14-slim\n")


def test_a_suite_that_has_moved_on_is_not_taken_for_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pythons, "unpacked", lambda *_: tmp_path)
    monkeypatch.setattr(pythons, "unpacked_version", lambda _: "3.15.0")
    with pytest.raises(NotAvailableError, match=r"Debian sid has Python 3\.15\.0"):
        prepare("3.14", tmp_path, {}, compiled=False)


def test_the_pythons_bench_measures_this_machines() -> None:
    done = run_bench("pythons", "--smoke", "--pure", "--only", "own", "--json")
    assert done.returncode == 0, done.stderr
    figures = [figure for figure in json.loads(done.stdout)["figures"] if figure["unit"]]
    assert {figure["what"].partition(" of this machine: ")[2] for figure in figures} >= {"gateway and persister"}
    assert all(figure["value"] > 0 for figure in figures)
    assert leftover_processes() == []
