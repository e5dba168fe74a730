import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.simulator.fake_tidegate import FakeTidegate

FIELDS = ["sent", "acked", "accepted", "rejected", "retried", "reconnects"]
FIELDS += ["ackP50Ms", "ackP99Ms", "seconds", "readingsPerSecond"]


async def start(*arguments: str) -> asyncio.subprocess.Process:
    environ = {**os.environ, "TIDEGATE_PASSWORD": "correct horse"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator", *arguments, stdout=-1, stderr=-1, env=environ
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_summary_is_one_json_object_on_the_last_line(tidegate: FakeTidegate, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("timestamp,value\n2024-05-01 00:00:00,1\n2024-05-01 00:00:00,2\n")
    common = ("--url", tidegate.url, "--email", "a@b.example", "--devices", "3", "--json")
    code, out, err = await finish(await start(*common, "--replay", str(path)))
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert list(summary) == FIELDS
    assert (summary["sent"], summary["acked"], summary["accepted"]) == (6, 6, 6)


async def test_a_signal_stops_flushes_and_still_prints_the_summary(tidegate: FakeTidegate) -> None:
    process = await start("--url", tidegate.url, "--email", "a@b.example", "--devices", "2", "--rate", "20", "--json")
    await tidegate.until(lambda: len(tidegate.events) >= 4)
    process.send_signal(signal.SIGINT)
    code, out, err = await finish(process)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["sent"] == summary["acked"] == len(tidegate.accepted)


async def test_bad_arguments_and_bad_files_exit_with_2(tidegate: FakeTidegate, tmp_path: Path) -> None:
    common = ("--url", tidegate.url, "--email", "a@b.example")
    for arguments in (
        ("--devices", "0"),
        ("--rate", "nan"),
        ("--batch", "1001"),
        ("--replay", "missing.csv"),
        ("--what",),
    ):
        code, _, err = await finish(await start(*common, *arguments))
        assert code == 2
        assert arguments[-1].lstrip("-") in err
    path = tmp_path / "rows.csv"
    path.write_text("timestamp,value\nnever,1\n")
    code, out, err = await finish(await start(*common, "--json", "--replay", str(path)))
    assert (code, out) == (2, "")
    assert f"{path}: line 2, column 'timestamp'" in err
    assert not tidegate.users


async def test_a_file_whose_values_do_not_fit_exits_with_2_and_options_help(
    tidegate: FakeTidegate, tmp_path: Path
) -> None:
    path = tmp_path / "plant.csv"
    path.write_text('when,bar\n2026-01-01 00:00:00+00:00,1\n2026-01-01 00:00:00+00:00,"1,5"\n')
    common = ("--url", tidegate.url, "--email", "a@b.example", "--devices", "1", "--json", "--replay", str(path))
    columns = ("--time-column", "when", "--value-column", "bar")
    code, out, err = await finish(await start(*common, *columns))
    assert (code, out) == (2, "")
    assert f"{path}: line 3, column 'bar': '1,5' is not a number" in err
    assert not tidegate.users
    options = ("--missing", "?", "--missing", "1,5", "--sensor-type", "pressure", "--value-type", "number")
    code, out, err = await finish(await start(*common, *columns, *options))
    assert code == 0, err
    assert {(kind, seq) for _, kind, _, seq in tidegate.accepted} == {("pressure", 0)}


async def test_conflicting_replay_options_are_errors(tidegate: FakeTidegate, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("timestamp,value\n2024-05-01 00:00:00,1\n")
    common = ("--url", tidegate.url, "--email", "a@b.example")
    for arguments, message in (
        (("--unit-column", "u"), "--unit-column goes with --replay"),
        (("--missing", "NA"), "--missing goes with --replay"),
        (("--replay", str(path), "--sensor-type", "a", "--sensor-type-column", "b"), "give one of them"),
        (("--replay", str(path), "--sensor-type", "a/b"), "must be 1 to 64 of"),
        (("--replay", str(path), "--value-type", "float"), "'auto', 'number', 'text', 'boolean'"),
    ):
        code, _, err = await finish(await start(*common, *arguments))
        assert code == 2
        assert message in err


async def test_an_unreachable_server_is_reported_with_a_hint(tidegate: FakeTidegate) -> None:
    code, _, err = await finish(await start("--url", "http://127.0.0.1:1", "--email", "a@b.example"))
    assert code == 1
    assert "is Tidegate running there?" in err
    assert "Traceback" not in err
