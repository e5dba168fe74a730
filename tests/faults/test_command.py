"""The command line of `make chaos`: what cannot be meant is refused before anything starts; nothing is left behind."""

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

import pytest

from testing.servers.network import NetworkError
from tests.faults import __main__ as command


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--minutes 0", "must be a number above 0"),
        ("--minutes nan", "must be a number above 0"),
        ("--devices 0", "must be a whole number from 1 to 1000"),
        ("--backup-age -1", "must be a number above 0"),
        # Without a crash, nothing would be proven.
        ("--onebox 0", "must be a whole number of at least 1"),
        ("--onebox -1", "must be a whole number of at least 1"),
        ("--onebox 1 --cluster", "not allowed with"),
        ("--onebox 1 --only sigterm_of_each", "leave out --only"),
        ("--short", "--short is for --cluster"),
        ("--cluster --only sigterm_of_each", "with --cluster there is no sigterm_of_each"),
        ("--only nothing", "invalid choice: 'nothing'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", *arguments.split()])
    monkeypatch.setattr(command, "run", None)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_a_server_that_starts_while_the_run_is_given_up_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def start(folder: Path) -> None:
        time.sleep(0.3)
        (folder / "rabbit-1").mkdir(parents=True)

    async def given_up(folder: Path, _: argparse.Namespace, __: random.Random) -> None:
        folders.append(folder)
        asyncio.get_running_loop().run_in_executor(None, start, folder)
        raise NetworkError("no namespaces here")

    monkeypatch.setattr(sys, "argv", ["chaos", "--cluster"])
    monkeypatch.setattr(command, "in_a_cluster", given_up)
    monkeypatch.setattr(command, "configure_logs", lambda *_: None)
    assert command.main() == command.NOT_HERE
    assert not folders[0].exists()
