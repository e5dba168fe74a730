"""Smoke runs of pipeline, growth and floor: each system stores what it acknowledged, and JSON reports it."""

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from bench import pipeline
from bench.environment import node_command
from bench.processes import BenchError
from bench.systems import CLUSTERED, FLOOR, NODE_SYSTEMS, PEERS, PURE, PYTHON, SYSTEMS, TIDEGATE, SharedServers
from bench.targets import WORKLOADS
from tests.bench.harness import ROOT, leftover_processes, run_bench

NODE_AVAILABLE = bool(os.environ.get("CI")) or (shutil.which("npm") and (NODE_SYSTEMS / "node_modules").exists())


def smoke_run(name: str, *arguments: str) -> dict[str, Any]:
    done = run_bench(name, "--smoke", "--json", *arguments)
    assert done.returncode in (0, 1), done.stderr
    assert leftover_processes() == []
    found: dict[str, Any] = json.loads(done.stdout)
    assert {"python", "kernel", "cpu", "commit", "pymongo"} <= found["versions"].keys()
    return found


def test_every_system_stores_what_it_has_acknowledged() -> None:
    only = [] if NODE_AVAILABLE else [f"--only={name}" for name in (CLUSTERED, PYTHON)]
    found = smoke_run("pipeline", *only)
    assert found["notMeasured"] == {}
    systems = SYSTEMS if NODE_AVAILABLE else (TIDEGATE, CLUSTERED, PYTHON)
    rows = {f"{workload.name}: {system}" for workload in WORKLOADS for system in systems}
    assert found["table"].keys() == rows | {f"{WORKLOADS[-1].name}: {FLOOR}"}
    for row in found["table"].values():
        assert row["lost"] == 0
        assert row["perSecond"] > 0
        assert row["total"] > 0
    checked = [figure for figure in found["figures"] if figure["verdict"]]
    peers = len(PEERS) if NODE_AVAILABLE else 1
    # Each workload with each peer, its rate, p50 and p99 of two of them, and the floor.
    assert len(checked) == len(WORKLOADS) * (peers + 1) + 4 + 1


def test_growth_is_reported_point_by_point() -> None:
    found = smoke_run("growth")
    assert found["notMeasured"] == {}
    assert [name for name in found["table"] if name.startswith("connections")] == ["connections: 5", "connections: 20"]
    assert [name for name in found["table"] if name.startswith("persisters")] == [
        "persisters that drain: 1",
        "persisters that drain: 2",
    ]
    assert len(found["table"]) == 2 + 4 + 4 + 2
    for row in found["table"].values():
        assert row["perSecond"] > 0
        assert row["mongod MiB"] > 0


def test_the_parts_are_measured_by_themselves() -> None:
    found = smoke_run("floor")
    assert {figure["unit"] for figure in found["figures"]} == {"µs a reading", "µs a message", "readings/s"}
    assert len(found["table"]) == 3


def test_a_run_without_compiled_modules_says_so_and_measures_the_sources_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runtime").mkdir()
    for file in ("runtime/__init__.py", "runtime/compiled.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    monkeypatch.setattr("bench.systems.ROOT", tmp_path)
    with ExitStack() as stack:
        started, missing = pipeline.start(cast("SharedServers", None), [PURE], stack, tmp_path)
    assert started == []
    assert list(missing) == ["Tidegate, compiled"]
    assert missing["Tidegate, compiled"].endswith(f"there is no {tmp_path}/build/compiled/manifest.json")


def test_without_node_its_systems_are_named_as_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BenchError, match="node and npm are not on PATH"):
        node_command(NODE_SYSTEMS, "to_mongodb.js")
