"""openapi-python-client and openapi-typescript generate working clients from the OpenAPI description."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from testing.node import node_with
from tests.e2e.onebox_process import running_onebox
from tests.generated.generator import python_with_generator
from tools.openapi_file import FILE

HERE = Path(__file__).parent
TYPESCRIPT = ("walk.ts", "tsconfig.json", "package.json")
PLACE = {"lat": 48.1371543, "lon": 11.575}
TIMES = ["2026-01-31T12:00:00.000Z", "2026-01-31T12:00:01.000Z", "2026-01-31T12:00:02.125Z"]


def run_command(command: list[str], folder: Path, **environment: str) -> str:
    """Run the command and return its output; it must succeed."""
    ran = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def require_walked(seen: Mapping[str, Any]) -> None:
    assert seen["user"] is True
    assert seen["tokenType"] == "Bearer"
    assert seen["location"] == PLACE
    assert (seen["accepted"], seen["rejected"]) == (3, [])
    assert seen["wrong"] == ["sensorType"]
    assert [item["value"] for item in seen["items"]] == [21.5, True, "idle"]
    assert [item.get("unit") for item in seen["items"]] == ["°C", None, None]
    assert [item.get("tags") for item in seen["items"]] == [None, {"hall": "3"}, None]
    assert all(item["location"] == PLACE for item in seen["items"])


async def test_a_generated_python_client_walks_from_sign_up_to_reading_back(tmp_path: Path) -> None:
    python = python_with_generator()
    client = tmp_path / "tidegate_client"
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"  # its ruff puts the client into form
    generate = [str(python.parent / "openapi-python-client"), "generate", "--meta", "none", "--fail-on-warning"]
    output = run_command([*generate, "--path", str(FILE), "--output-path", str(client)], tmp_path, PATH=path)
    assert output.split() == ["Generating", *str(client).split()]
    async with running_onebox("--devices", "0", data=tmp_path / "data") as (_, url):
        output = run_command([str(python), str(HERE / "walk.py")], tmp_path, PYTHONPATH=str(tmp_path), TIDEGATE_URL=url)
    seen = json.loads(output)
    require_walked(seen)
    assert seen["createdAt"] == "datetime"
    assert seen["deviceClaim"] is False
    assert seen["times"] == [datetime.fromisoformat(time).isoformat() for time in TIMES]


async def test_a_generated_typescript_client_walks_from_sign_up_to_reading_back(tmp_path: Path) -> None:
    node = node_with(HERE, "openapi-typescript")
    for name in TYPESCRIPT:
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    bin_folder = HERE / "node_modules" / ".bin"
    output = run_command([node, str(bin_folder / "openapi-typescript"), str(FILE), "-o", "schema.ts"], tmp_path)
    assert [line.split()[0] for line in output.splitlines() if line] == ["✨", "🚀"], output
    assert run_command([node, str(bin_folder / "tsc"), "--project", "tsconfig.json"], tmp_path) == ""
    async with running_onebox("--devices", "0", data=tmp_path / "data") as (_, url):
        seen = json.loads(run_command([node, "out/walk.js"], tmp_path, TIDEGATE_URL=url))
    require_walked(seen)
    assert seen["deviceClaim"] is None
    assert seen["session"] is True
    assert [item["ts"] for item in seen["items"]] == TIMES


@pytest.mark.parametrize(("ci", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_where_the_generator_cannot_be_installed_a_run_in_ci_fails_and_another_skips(
    ci: str, outcome: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    (tmp_path / "requirements.txt").write_text("./no-such-folder-here\n")
    monkeypatch.setattr("tests.generated.generator.REQUIREMENTS", tmp_path / "requirements.txt")
    with pytest.raises(outcome, match="no-such-folder-here"):
        python_with_generator()
