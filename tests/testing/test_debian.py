"""Programs of another Debian: kept once unpacked, run like this machine's, and reported if they are not available."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.servers import debian
from testing.servers.debian import (
    INSTALL,
    NotAvailableError,
    newest_rabbitmq_root,
    unpacked_version,
    versions_line,
    write_wrapper,
)
from testing.servers.rabbitmq import RabbitMQServer
from tests.integration.services import ROOT


async def test_runs_at_once_find_the_same_folder(newest_rabbitmq_server: RabbitMQServer) -> None:
    assert tuple(map(int, newest_rabbitmq_server.version.split(".")[:2])) >= (4, 3)
    roots = await asyncio.gather(*(asyncio.to_thread(newest_rabbitmq_root) for _ in range(3)))
    assert len(set(roots)) == 1
    assert unpacked_version(roots[0]) == newest_rabbitmq_server.version


def test_a_program_there_sees_this_checkout_and_the_current_folder_and_ends_with_its_exit_code(
    newest_rabbitmq_server: RabbitMQServer, tmp_path: Path
) -> None:
    assert newest_rabbitmq_server.running
    root = newest_rabbitmq_root()
    wrapper = write_wrapper(tmp_path / "shell", root, "/bin/sh", log=tmp_path / "log", FOLDERS=Path("/first"))
    script = f"cat {INSTALL}; pwd; cat /etc/debian_version; echo $FOLDERS; echo late >&2; exit 7"
    done = subprocess.run(
        [str(wrapper), "-c", script],
        cwd=tmp_path,
        env={"FOLDERS": "/second", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    version = (root / "etc" / "debian_version").read_text()
    assert done.stdout == INSTALL.read_text() + f"{tmp_path}\n{version}/first:/second\n"
    assert (done.returncode, done.stderr, (tmp_path / "log").read_text()) == (7, "", "late\n")
    assert not list((root / "dev").iterdir()), "the mounts are of its namespace only"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_without_root_it_says_so_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-s", "sid", "rabbitmq-server"],
        input=INSTALL.read_text(),  # that user may not be able to read the tree
        env={"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "not run as root, which chroot into another Debian needs\n"
    assert not list(tmp_path.iterdir())


def test_why_it_cannot_be_had_reaches_who_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "install"
    script.write_text("#!/bin/sh\necho 'downloading' >&2\necho 'no network' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(debian, "INSTALL", script)
    with pytest.raises(NotAvailableError, match=r"^no network$"):
        newest_rabbitmq_root()


def test_the_last_line_names_the_versions_and_what_was_not_tested() -> None:
    assert versions_line(["3.10.8", "4.3.6", "3.10.8"], "") == "RabbitMQ 3.10.8 and 4.3.6 ran in these tests"
    assert (
        versions_line(["3.10.8"], "no network")
        == "RabbitMQ 3.10.8 ran in these tests; NOT TESTED with the newest: no network"
    )


@pytest.mark.parametrize(("ci", "word"), [("", "skipped"), ("true", "error")])
def test_where_it_cannot_be_had_the_run_says_so_and_in_ci_it_fails(ci: str, word: str, tmp_path: Path) -> None:
    program = tmp_path / "id"  # the script asks it whether this is root
    program.write_text("#!/bin/sh\necho 1000\n")
    program.chmod(0o755)
    done = subprocess.run(
        [
            *["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/broker/rabbitmq/test_topology.py"],
            "-k",
            "each_service and newest",
        ],
        env=os.environ
        | {"CI": ci, "XDG_CACHE_HOME": str(tmp_path), "PATH": f"{tmp_path}:{venv()}:{os.environ['PATH']}"},
        cwd=INSTALL.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"1 {word}" in done.stdout, done.stdout
    assert "RabbitMQ (none) ran in these tests; NOT TESTED with the newest: not run as root" in done.stdout
    assert (done.returncode == 0) is (not ci)


def venv() -> str:
    return str(Path(sys.executable).parent)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up its rights")
def test_where_a_container_may_not_mount_it_is_not_available_although_it_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "tidegate-tests" / "sid-true").mkdir(parents=True)
    (tmp_path / "tidegate-tests" / "sid-true" / "version").write_text("1.0\n")
    program = "from testing.servers.debian import unpacked; unpacked('sid', 'true')"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-c", program],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NotAvailableError: its programs cannot be run here: unshare" in done.stderr
