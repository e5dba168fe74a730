"""Stored results: JSON with versions, a table, a plot."""

import json
from pathlib import Path

import pytest

from bench import results
from bench.all import Results
from bench.report import Figure
from bench.results import Details, finish


def test_a_full_measurement_is_stored_as_json_table_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    details = Details({"1 an event: Tidegate": {"gateway": 12.0, "total": 12.0}}, {"Python, plain": "no Python"})
    figures = [Figure("a", 1.0, "x", at_least=2), Figure("b", 1.0, "x")]
    assert finish("name", "Title", figures, details, as_json=False, save=True) == 1
    found = json.loads((tmp_path / "results" / "name.json").read_text())
    assert [figure["verdict"] for figure in found["figures"]] == ["FALLS SHORT", ""]
    assert {"npm mongodb", "aio-pika", "commit", "cpu"} <= found["versions"].keys()
    assert str(tmp_path) not in json.dumps(found)
    assert "not measured: Python, plain" in (tmp_path / "results" / "name.md").read_text()
    assert (tmp_path / "results" / "name.svg").read_text().startswith("<svg")
    assert "not measured: Python, plain: no Python" in capsys.readouterr().out


def test_a_quick_run_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    assert finish("name", "Title", [Figure("b", 1.0, "x")], Details(), as_json=True, save=False) == 0
    assert not (tmp_path / "results").exists()


def test_all_parts_add_their_figures_and_what_could_not_be_measured() -> None:
    results_of_all = Results()
    figure = {"what": "a", "value": 1.0, "unit": "x", "limit": None, "at_least": 2.0, "verdict": "FALLS SHORT"}
    results_of_all.add("pipeline", {"title": "Way", "figures": [figure], "notMeasured": {"Python, plain": "no Python"}})
    results_of_all.add("auth_logins", {"logInsPerSecond": 7.0, "ratio": 0.95, "healthzP99Ms": 60.0})
    assert [figure.verdict for figure in results_of_all.figures] == ["", "FALLS SHORT", "", "", "holds", "FALLS SHORT"]
    assert results_of_all.not_measured == {"pipeline: Python, plain": "no Python"}
