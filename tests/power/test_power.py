"""`make power` in its short form, the control that must lose numbers, and what the disk itself keeps and forgets."""

import asyncio
import os
import random
import re
import stat
import sys
from pathlib import Path
from typing import Self

import pytest

from tests.integration.services import ROOT
from tests.power import __main__ as command
from tests.power.scenarios import Proof
from tests.power.stores import Writing
from tests.power.volatile import SECTOR, Node, VolatileDisk

FUSE = Path("/dev/fuse").exists()
FILE = stat.S_IFREG | 0o600


# A buffer that takes a failed sync for done.
TRUSTING = """
import sys
from tests.power import __main__ as command
from tests.power.stores import DeviceBuffer

class Trusting(DeviceBuffer):
    writer = "trusting"

command.STORES["trusting"] = Trusting
sys.exit(command.main())
"""


async def power(*arguments: str, program: tuple[str, ...] = ("-m", "tests.power")) -> tuple[int, str]:
    """Run it; skip visibly where no disk can be mounted, in CI fail."""
    if not os.environ.get("CI") and (os.geteuid() != 0 or not FUSE):
        pytest.skip("mounting a disk needs root and /dev/fuse")
    command = (sys.executable, *program, *arguments)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    print(output.decode())
    return process.returncode or 0, output.decode()


@pytest.mark.timeout(600)
async def test_what_was_acknowledged_outlives_power_cuts_a_failed_sync_and_a_slow_disk(seed: int) -> None:
    only = ("embedded", "device", "mongodb-cuts", "mariadb-cuts", "rabbitmq-cuts")
    code, output = await power("--short", "--cuts", "8", "--seed", str(seed % 10_000), "--only", *only)
    assert code == 0
    found = re.search(r"seed .*: (\d+) cuts, .* (\d+) acknowledged, 0 lost, 0 twice, 0 foreign", output)
    assert found
    assert int(found[1]) == 8 + 6
    assert int(found[2]) > 100


@pytest.mark.timeout(120)
async def test_a_disk_that_ignores_syncs_is_found_out() -> None:
    code, output = await power("--control", "--only", "embedded", "device")
    assert code == 0
    assert "embedded-control" in output
    assert "device-control" in output
    assert "the control lost numbers" in output


@pytest.mark.timeout(120)
async def test_a_store_that_takes_a_failed_sync_for_done_is_found_out() -> None:
    code, output = await power("--only", "trusting-dying", program=("-c", TRUSTING))
    assert code == 1, output
    assert not re.search(r" acknowledged, 0 lost", output)


class Folder:
    """A folder in place of a disk."""

    ignores_syncs = False

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def sync(self) -> None: ...


def test_a_scenario_that_fails_leaves_no_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the command would wait for it, and never end."""
    writing: list[Writing] = []

    def failing(proof: Proof) -> None:
        writing.append(proof.writing())
        raise RuntimeError("no start")

    monkeypatch.setattr(command, "ForgetfulDisk", Folder)
    account = command.prove("fails", "device", failing, tmp_path, 1)
    assert account.failures == ["RuntimeError: no start"]
    assert writing[0].process.poll() is not None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--cuts 0", "must be a whole number of at least 1"),
        ("--cuts -5", "must be a whole number of at least 1"),
        ("--only nothing", "unknown: nothing; see --list"),
        ("--cuts 3 --only mariadb-cuts", "each store needs a cut of its own"),
        ("--control --only device-cuts", "--control takes stores"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["power", *arguments.split(), "--list"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_cuts_are_spread_over_the_stores() -> None:
    assert [*command.shares(7).values()] == [2, 2, 1, 1, 1]
    assert sum(command.shares(10**12).values()) == 10**12


def disk_with_a_file() -> tuple[VolatileDisk, Node]:
    disk = VolatileDisk()
    file = disk.new(FILE, 0, 0)
    disk.change((disk.root, b"file", file))
    return disk, file


def content(node: Node) -> bytes:
    return os.pread(node.data, 10 * SECTOR, 0)


def test_a_cut_forgets_what_was_written_after_the_last_sync() -> None:
    disk, file = disk_with_a_file()
    file.write(b"kept", 0)
    disk.sync(file)
    file.write(b"lost", 2)
    assert content(file) == b"kelost"
    disk.cut(None)
    assert content(disk.root.entries[b"file"]) == b"kept"


def test_a_cut_forgets_a_file_that_was_never_synced_and_undoes_a_rename() -> None:
    disk, file = disk_with_a_file()
    disk.sync(file)
    disk.change((disk.root, b"other", disk.new(FILE, 0, 0)))
    disk.rename(disk.root, b"file", disk.root, b"renamed")
    disk.cut(None)
    assert disk.root.entries == {b"file": file}


def test_a_sync_makes_earlier_names_durable_but_not_the_data_of_other_files() -> None:
    disk, file = disk_with_a_file()
    file.write(b"not synced", 0)
    other = disk.new(FILE, 0, 0)
    disk.change((disk.root, b"other", other))
    disk.sync(other)
    disk.cut(None)
    assert content(disk.root.entries[b"file"]) == b""


@pytest.mark.parametrize("ext4", [False, True])
def test_what_replaces_a_file_has_its_data_where_the_disk_keeps_the_order(ext4: bool) -> None:
    disk, file = disk_with_a_file()
    disk.data_before_rename = ext4
    file.write(b"old", 0)
    disk.sync(file)
    other, new = disk.new(FILE, 0, 0), disk.new(FILE, 0, 0)
    disk.change((disk.root, b"other", other), (disk.root, b"new", new))
    new.write(b"new", 0)
    disk.rename(disk.root, b"new", disk.root, b"file")
    other.write(b"not synced", 0)
    disk.sync(file)
    disk.cut(None)
    assert content(disk.root.entries[b"file"]) == (b"new" if ext4 else b"")
    assert content(disk.root.entries[b"other"]) == b""


def test_what_was_cut_off_before_a_sync_does_not_come_back() -> None:
    disk, file = disk_with_a_file()
    file.write(b"x" * 3 * SECTOR, 0)
    disk.sync(file)
    file.resize(10)
    file.resize(2 * SECTOR)
    disk.sync(file)
    disk.cut(None)
    assert content(file) == b"x" * 10 + b"\0" * (2 * SECTOR - 10)


def test_a_torn_write_keeps_some_of_its_sectors(rng: random.Random) -> None:
    disk, file = disk_with_a_file()
    file.write(b"a" * 8 * SECTOR, 0)
    disk.sync(file)
    torn = 0
    for _ in range(20):
        file.write(b"b" * 8 * SECTOR, 0)
        disk.cut(rng)
        found = content(file)
        sectors = [found[at : at + SECTOR] for at in range(0, len(found), SECTOR)]
        assert {len(set(sector)) for sector in sectors} == {1}
        torn += len(set(sectors)) > 1
        file.write(b"a" * 8 * SECTOR, 0)
        disk.sync(file)
    assert torn > 0


def test_after_a_failed_sync_a_second_one_does_not_write_what_the_first_should_have() -> None:
    disk, file = disk_with_a_file()
    disk.sync(file)
    file.write(b"gone", 0)
    file.forget_dirty()  # what Linux does when a sync fails
    file.write(b"kept", SECTOR)
    disk.sync(file)
    disk.cut(None)
    assert content(file) == b"\0" * SECTOR + b"kept"
