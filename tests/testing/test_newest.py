"""The newest RabbitMQ: kept once it is installed, and clearly reported if it is not available."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.servers import newest
from testing.servers.newest import NotAvailableError, newest_rabbitmq_root, versions_line
from testing.servers.rabbitmq import RabbitMQServer

SCRIPT = Path(newest.__file__).with_name("install-newest-rabbitmq")


async def test_runs_at_once_find_the_same_folder(newest_rabbitmq_server: RabbitMQServer) -> None:
    assert tuple(map(int, newest_rabbitmq_server.version.split(".")[:2])) >= (4, 3)
    roots = await asyncio.gather(*(asyncio.to_thread(newest_rabbitmq_root) for _ in range(3)))
    assert len(set(roots)) == 1
    assert (roots[0] / "version").read_text().strip() == newest_rabbitmq_server.version


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_without_root_it_says_so_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-s"],
        input=SCRIPT.read_text(),  # that user may not be able to read the tree
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
    (tmp_path / "install-newest-rabbitmq").write_text(
        "#!/bin/sh\necho 'downloading' >&2\necho 'no network' >&2\nexit 1\n"
    )
    (tmp_path / "install-newest-rabbitmq").chmod(0o755)
    monkeypatch.setattr(newest, "__file__", str(tmp_path / "newest.py"))
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
        cwd=SCRIPT.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"1 {word}" in done.stdout, done.stdout
    assert "RabbitMQ (none) ran in these tests; NOT TESTED with the newest: not run as root" in done.stdout
    assert (done.returncode == 0) is (not ci)


def venv() -> str:
    return str(Path(sys.executable).parent)
