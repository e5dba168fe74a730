"""The matrix itself: the walk holds with this machine's programs, finds a missing right, and nothing is left unsaid."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from testing.servers.debian import NotAvailableError
from tests.matrix import __main__ as matrix
from tests.matrix.choices import CHOICES, Choice, Found, Programs, defaults
from tests.matrix.shipped_rabbitmq import FOLDER
from tests.matrix.stack import running_stack
from tests.matrix.walk import walk

OWN = Programs(*(Found(program, "1.2.3") for program in ("rabbitmq", "mariadb", "nginx", "python", "node")))


async def test_the_whole_pipeline_works_with_the_shipped_rights_users_and_configuration(tmp_path: Path) -> None:
    async with running_stack(tmp_path, defaults()) as stack:
        await walk(stack, tmp_path)


async def test_the_walk_fails_where_a_right_is_missing(tmp_path: Path) -> None:
    rights = json.loads((FOLDER / "rights.json").read_text())
    assert "commands" in rights["auth"]["write"]
    rights["auth"]["write"] = rights["auth"]["write"].replace("commands", "no-commands")
    async with running_stack(tmp_path, defaults(), rights) as stack:
        with pytest.raises(AssertionError, match=r"/commands: 50[34]"):
            await walk(stack, tmp_path)


class Machine:
    """Stands in for what can be had and what fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.missing: set[str] = set()
        self.failing: set[str] = set()
        self.ran: list[Programs] = []
        monkeypatch.setattr(matrix, "defaults", lambda: OWN)
        monkeypatch.setattr(matrix, "find", self._find)
        monkeypatch.setattr(matrix, "run", self._run)
        monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")

    def _find(self, choice: Choice) -> Found:
        if choice.name in self.missing:
            raise NotAvailableError("no network")
        return Found(choice.program, f"{choice.version}.9")

    async def _run(self, programs: Programs, _: Path) -> None:
        self.ran.append(programs)
        if self.failing & {f"{one.program}-{one.version.removesuffix('.9')}" for one in programs}:
            raise AssertionError("readings are missing")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["matrix", *arguments])
    return matrix.main()


def test_every_version_is_a_cell_that_differs_from_this_machine_in_one_program(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [*(one.name for one in CHOICES), "debian-13", "debian-sid"]
    assert all(line.split()[1] == "ok" for line in lines[:-1])
    assert lines[-1].startswith("16 passed, 0 failed, 0 not available, ")
    for choice, programs in zip(CHOICES, machine.ran, strict=False):
        others = set(programs) - set(OWN)
        assert others == {Found(choice.program, f"{choice.version}.9")}


def test_what_fails_and_what_cannot_be_had_is_named_with_its_reason(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.missing, machine.failing = {"rabbitmq-4.0"}, {"rabbitmq-4.3"}
    assert started(monkeypatch, "--only", "rabbitmq", "debian-13") == 1
    older, newer, newest, suite, last = capsys.readouterr().out.splitlines()
    assert "ok" in older
    assert newer.endswith("not available: RabbitMQ 4.0: no network")
    assert "FAILED" in newest
    assert "AssertionError: readings are missing" in newest
    assert "MariaDB 11.8.9" in suite
    assert "not available: RabbitMQ 4.0: no network" in suite
    assert last.startswith("2 passed, 1 failed, 2 not available, ")


def test_a_run_in_which_nothing_could_be_had_does_not_pass(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.missing = {"mysql-9.7"}
    assert started(monkeypatch, "--only", "mysql") == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 passed, 0 failed, 1 not available, ")


def test_the_short_form_is_a_cell_a_suite(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, "--short") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]] == ["debian-13", "debian-sid"]
    assert {str(one) for one in machine.ran[1]} == {
        *("RabbitMQ 4.3.9", "MySQL 9.7.9", "nginx 1.30.9", "Python 3.14.9", "Node.js 24.9"),
    }


@pytest.mark.parametrize("arguments", ["--only rabbit", "--only nginx rabbit --list"])
def test_a_name_that_no_cell_has_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        started(monkeypatch, *arguments.split())
    assert ended.value.code == 2
    assert "no cell is called rabbit; see --list" in capsys.readouterr().err
    assert machine.ran == []
