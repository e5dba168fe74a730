"""The private mongod listens on its socket only, ends with its owner, and loses nothing in a crash."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pymongo
import pytest

from onebox.mongod import MongodError, PrivateMongod, find_mongod, private_mongod
from testing.servers.ports import listening_ports
from testing.servers.process import exists, wait_until

ROOT = Path(__file__).parents[2]
OWNER = """
import asyncio, sys
from pathlib import Path
from onebox import mongod

if sys.argv[2] == "orphan":  # what a kernel without PR_SET_PDEATHSIG would leave behind
    mongod.LAUNCHER = "import os, sys; os.execv(sys.argv[2], sys.argv[2:])"

async def own():
    async with mongod.private_mongod(Path(sys.argv[1])) as running:
        print(running.pid, running.url, flush=True)
        await running.exited()

asyncio.run(own())
"""
LOADER = "mongod: error while loading shared libraries:"
DATA = {"_id": 1, "value": 20.5}


@contextmanager
def killed_owner(folder: Path, kind: str) -> Iterator[int]:
    """Run an owner in a process of its own, write through it, kill it, and hand out the pid of its mongod."""
    command = [sys.executable, "-c", OWNER, str(folder), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout
        pid, url = owner.stdout.readline().decode().split()
        with client_of(url) as client:
            client["kept"]["readings"].insert_one(DATA)
        owner.kill()
    yield int(pid)


def client_of(url: str) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(url, w="majority", journal=True, serverSelectionTimeoutMS=5000)


def stored(mongod: PrivateMongod) -> dict[str, Any] | None:
    with client_of(mongod.url) as client:
        return client["kept"]["readings"].find_one()


def fake_mongod(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder.mkdir()
    (folder / "mongod").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "mongod").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


async def refusal(folder: Path) -> str:
    with pytest.raises(MongodError) as caught:
        async with private_mongod(folder):
            pass
    message = str(caught.value)
    assert "\n" not in message
    assert not (folder / "mongod.owner").exists()
    return message


def started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


async def test_it_listens_on_nothing_but_a_socket_in_a_private_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mongo"
    async with private_mongod(folder) as mongod:
        assert stored(mongod) is None
        assert listening_ports(mongod.pid) == set()
        assert sockets_of(mongod.pid) == {str(folder / "mongod.sock")}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not exists(mongod.pid)
    assert not (folder / "mongod.sock").exists()
    assert not (folder / "mongod.owner").exists()
    assert await mongod.exited() == 0


def sockets_of(pid: int) -> set[str]:
    """Return the paths of the listening Unix sockets of a process."""
    listening = "00010000"  # __SO_ACCEPTCON, the flags of proc(5), /proc/net/unix
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    paths = {f"socket:[{row[6]}]": row[7] for row in rows if len(row) > 7 and row[3] == listening}
    links = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            links.add(str(link.readlink()))
    return {path for inode, path in paths.items() if inode in links}


async def test_what_was_journaled_is_there_at_the_next_start(tmp_path: Path) -> None:
    for _ in range(2):
        async with private_mongod(tmp_path) as mongod:
            with client_of(mongod.url) as client:
                client["kept"]["readings"].update_one({"_id": 1}, {"$set": DATA}, upsert=True)
    async with private_mongod(tmp_path) as mongod:
        assert stored(mongod) == DATA
    assert names(tmp_path, "*.log*") == ["mongod.log", "mongod.log.1"]


async def test_it_ends_with_its_killed_owner_and_starts_again_at_once(tmp_path: Path) -> None:
    with killed_owner(tmp_path, "as it is") as pid:
        async with private_mongod(tmp_path) as mongod:
            assert not exists(pid)
            assert stored(mongod) == DATA


async def test_it_ends_with_its_killed_owner_though_nobody_starts_it_again(tmp_path: Path) -> None:
    with killed_owner(tmp_path, "as it is") as pid:
        await asyncio.to_thread(wait_until, lambda: not exists(pid), "mongod is gone", 5)


async def test_an_orphan_is_found_and_ended(tmp_path: Path) -> None:
    with killed_owner(tmp_path, "orphan") as pid:
        assert exists(pid)
        async with private_mongod(tmp_path) as mongod:
            assert not exists(pid)
            assert stored(mongod) == DATA


async def test_a_process_that_only_has_the_pid_of_an_orphan_is_left_alone(tmp_path: Path) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        note = {"pid": stranger.pid, "started": started(stranger.pid), "owner": 1, "ownerStarted": 0, "socket": "/x"}
        (tmp_path / "mongod.owner").write_text(json.dumps(note))
        async with private_mongod(tmp_path):
            assert stranger.returncode is None
    finally:
        stranger.kill()
    assert await stranger.wait() == -signal.SIGKILL  # ours, and no earlier one


async def test_the_mongod_of_an_owner_that_lives_is_left_alone(tmp_path: Path) -> None:
    async with private_mongod(tmp_path) as mongod:
        with pytest.raises(MongodError, match=f"process {os.getpid()} runs a mongod on"):
            async with private_mongod(tmp_path):
                pass
        assert stored(mongod) is None


async def test_the_owner_learns_that_it_has_ended(tmp_path: Path) -> None:
    async with private_mongod(tmp_path) as mongod:
        os.kill(mongod.pid, signal.SIGKILL)
        assert await asyncio.wait_for(mongod.exited(), 5) == -signal.SIGKILL


@pytest.mark.parametrize("name", ["long-" * 30, "a,b", "with space %41 ü"])
async def test_folders_of_any_name_work(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    async with private_mongod(folder) as mongod:
        assert stored(mongod) is None
        sockets = sockets_of(mongod.pid)
    assert len(sockets) == 1
    assert not any(map(os.path.exists, sockets))
    assert names(folder, "WiredTiger") == ["WiredTiger"]


async def test_a_socket_folder_of_a_killed_owner_is_removed_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / ("long-" * 30)
    with killed_owner(folder, "orphan") as pid:
        (left,) = sockets_of(pid)
        async with private_mongod(folder) as mongod:
            assert stored(mongod) == DATA
        assert not Path(left).parent.exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (f"echo '{LOADER} libcurl.so.4: cannot open shared object file' >&2; exit 127", "apt-get install libcurl4"),
        (f"echo '{LOADER} libssl.so.3: cannot open shared object file' >&2; exit 127", "OpenSSL 3's libssl.so.3"),
        ("kill -ILL $$", "a processor with AVX"),
        ('echo \'{"s":"E","attr":{"error":"IOError: No space left on device"}}\'; exit 100', "the disk is full"),
        ("exit 62", "its data was written by another version of mongod"),
        ("exit 3", "it ended with status 3"),
        ("kill -KILL $$", "signal 9 ended it"),
    ],
)
async def test_a_mongod_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    fake_mongod(tmp_path / "bin", monkeypatch, script)
    message = await refusal(tmp_path / "data")
    assert said in message
    assert message.endswith(f"see {tmp_path / 'data' / 'mongod.log'}")


async def test_data_of_another_version_are_named_as_such(tmp_path: Path) -> None:
    async with private_mongod(tmp_path):
        pass
    turtle = tmp_path / "WiredTiger.turtle"
    newer = turtle.read_text().replace("version=(major=1,", "version=(major=99,")
    assert newer != turtle.read_text()
    turtle.write_text(newer)
    assert "its data was written by another version of mongod" in await refusal(tmp_path)


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in await refusal(tmp_path / "file")


def test_mongod_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mongod(tmp_path / "bin", monkeypatch, "exit 0")
    assert find_mongod() == tmp_path / "bin" / "mongod"


def test_without_any_mongod_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.metadata.distributions", lambda: iter(()))
    with pytest.raises(MongodError, match=r"pip install -r requirements/onebox.txt"):
        find_mongod()
