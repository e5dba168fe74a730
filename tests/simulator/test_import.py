"""`python -m simulator import`: what is sent, what is left out, and what is told about it."""

import asyncio
import csv
import gzip
import json
import os
import sys
from pathlib import Path

import pytest

from simulator.errors import ReplayError, SimulatorError
from simulator.importing import ImportPlan, check_files, import_files
from simulator.replay.file import Replay
from simulator.run_stats import RunStats
from tests.simulator.fake_tidegate import CUT, FakeTidegate

T0 = 1_769_817_600_000
EMAIL, PASSWORD = "a@b.example", "correct horse"


def plan(tidegate: FakeTidegate, *files: Replay, keep_going: bool = False) -> ImportPlan:
    return ImportPlan(url=tidegate.url, email=EMAIL, password=PASSWORD, files=files, keep_going=keep_going)


def table(path: Path, *lines: str) -> Replay:
    path.write_text("".join(f"{line}\n" for line in ("t,a,b", *lines)))
    return Replay(path, device="d:1")


async def imported(chosen: ImportPlan) -> tuple[RunStats, list[str]]:
    stats, told = RunStats(), list[str]()
    checked = await check_files(chosen, on_survey=lambda *_: None, on_refusal=lambda _, error: told.append(str(error)))
    await import_files(
        chosen, checked, stats=stats, stop=asyncio.Event(), on_rejected=lambda _, error: told.append(str(error))
    )
    return stats, told


async def test_files_are_sent_once_as_the_device_that_is_named_though_answers_are_lost(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    tidegate.users[EMAIL] = PASSWORD
    tidegate.http_script += [CUT, 503]
    first = table(tmp_path / "a.csv", "2026-01-31 00:00,1,2", "2026-01-31 01:00,3,4")
    second = Replay(tmp_path / "b.csv.gz", device="d:1")
    second.path.write_bytes(gzip.compress(b"t;a\n2026-02-01 00:00;5,5\n"))
    for _ in range(2):
        stats, told = await imported(plan(tidegate, first, second))
        assert (stats.expected, stats.accepted, stats.rejected, stats.devices, told) == (5, 5, 0, 1, [])
    hours = [(kind, T0 + hour * 3_600_000, 0) for hour in (0, 1) for kind in ("a", "b")]
    assert tidegate.accepted == {("d:1", *identity) for identity in (*hours, ("a", T0 + 86_400_000, 0))}
    assert not tidegate.devices


async def test_nothing_is_sent_if_one_file_has_a_bad_row(tidegate: FakeTidegate, tmp_path: Path) -> None:
    files = table(tmp_path / "a.csv", "2026-01-31,1,2"), table(tmp_path / "b.csv", "2026-01-31,1,2", "never,3,4")
    with pytest.raises(ReplayError, match=r"b\.csv: line 3, column 't': 'never' is not a time"):
        await imported(plan(tidegate, *files))
    assert not tidegate.events
    with pytest.raises(ReplayError, match="its rows name no device: --device, or --device-column, says"):
        await imported(plan(tidegate, Replay(files[0].path)))


async def test_rows_that_are_left_out_or_rejected_are_told_with_their_lines(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    tidegate.users[EMAIL] = PASSWORD
    tidegate.reject_value = 7
    file = table(tmp_path / "a.csv", "2026-01-31 00:00,1,2", "never,3,4", "2026-01-31 02:00,7,8")
    stats, told = await imported(plan(tidegate, file, keep_going=True))
    assert (stats.accepted, stats.rejected) == (3, 1)
    assert told[0].startswith(f"{file.path}: line 3, column 't': 'never' is not a time")
    assert told[1:] == [f"{file.path}: line 4: rejected: invalid_value (no)"]


async def test_an_account_is_not_signed_up_by_an_import(tidegate: FakeTidegate, tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match=r"a@b\.example cannot log in; check --email and --password"):
        await imported(plan(tidegate, table(tmp_path / "a.csv", "2026-01-31,1,2")))
    assert not tidegate.users


async def command(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulator", "import", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TIDEGATE_PASSWORD": PASSWORD},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_accounts_for_every_row_of_every_file(tidegate: FakeTidegate, tmp_path: Path) -> None:
    tidegate.users[EMAIL] = PASSWORD
    file = table(tmp_path / "a.csv", "2026-01-31 02:00,1,2", "2026-01-31 03:00,,", "never,3,4", "2026-01-31 05:00,x,6")
    refused = tmp_path / "refused.csv"
    account = ("--url", tidegate.url, "--email", EMAIL, "--device", "d:1", "--json")
    rules = ("--zone", "Europe/Berlin", "--repeated-hour", "order", "--unit", "a=bar", "--year", "2025")
    code, out, err = await command(str(file.path), *account, *rules, "--keep-going", "--refused", str(refused))
    assert code == 1, err
    summary = json.loads(out)
    assert summary["files"] == [
        {"file": str(file.path), "rows": 4, "complete": 1, "partial": 1, "empty": 1, "refused": 1, "readings": 3}
    ]
    assert (summary["sent"], summary["accepted"], summary["unsent"]) == (3, 3, 0)
    assert f"{file.path}: comma-separated, decimal point, header in line 1\n" in err
    assert f"{file.path}: a from 'a', numbers in bar\n" in err
    with refused.open(newline="") as written:
        assert [(row["line"], row["column"]) for row in csv.DictReader(written)] == [("4", "t"), ("5", "a")]
    sent = [(item["ts"], item.get("unit")) for _, _, items in tidegate.events for item in items]
    assert sent[0] == (1_738_285_200_000, "bar")


async def test_a_dry_run_says_what_is_in_the_files_and_sends_nothing(tmp_path: Path) -> None:
    good = table(tmp_path / "a.csv", "2026-01-31 00:00,1,2", "2026-01-31 01:00,3,")
    code, out, err = await command(str(good.path), "--device", "d:1", "--dry-run")
    assert (code, out.splitlines()) == (
        0,
        [
            f"{good.path}: 2 rows: 2 complete, 0 in part, 0 without a value, 0 refused; 3 readings",
            "  d:1 a: 2 readings, 2026-01-31T00:00:00.000Z to 2026-01-31T01:00:00.000Z",
            "  d:1 b: 1 readings, 2026-01-31T00:00:00.000Z to 2026-01-31T00:00:00.000Z",
            "nothing was sent (--dry-run)",
        ],
    )
    assert f"{good.path}: times from 't', in UTC unless they say otherwise\n" in err
    bad = table(tmp_path / "b.csv", "01/02/2026,1,2")
    code, out, err = await command(str(good.path), str(bad.path), "--device", "d:1", "--dry-run")
    assert (code, out) == (2, "")
    assert f"import: {bad.path}: column 't': is '01/02/2026' in line 2 day first or month first?" in err


async def test_a_file_that_is_imported_is_not_overwritten_with_its_refusals(tmp_path: Path) -> None:
    file = table(tmp_path / "a.csv", "never,1,2")
    (tmp_path / "link.csv").symlink_to(file.path)
    before = file.path.read_bytes()
    for refused in (file.path, tmp_path / "link.csv"):
        code, _, err = await command(str(file.path), "--device", "d:1", "--dry-run", "--refused", str(refused))
        assert code == 2
        assert f"--refused {refused}: it is one of the files to import" in err
    assert file.path.read_bytes() == before
