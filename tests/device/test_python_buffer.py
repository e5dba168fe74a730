"""The buffer of the Python library: one file, in which nothing is lost and no identity is used twice."""

import errno
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from device import BufferFailed, BufferInUse
from device.buffer import Buffer
from device.outbox import FRESH, Outbox
from device.reading import LARGEST_SEQ, MAX_READING_BYTES, Row, milliseconds
from tests.integration.services import ROOT


def bodies(buffer: Buffer) -> list[dict[str, Any]]:
    return [json.loads(row.body) for row in buffer.after(0, 1000)]


def test_ts_and_seq_are_filled_in_and_given_ones_stay(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db")
    buffer.default_series("temperature")
    for reading in ({"value": 1}, {"value": 2, "ts": 5}, {"value": 3, "ts": "2026-01-31T12:00:00Z", "seq": 40}):
        buffer.append(reading)
    buffer.append({"value": 4, "sensorType": "t"})
    buffer.append({"value": 5})
    found = bodies(buffer)
    assert [one["seq"] for one in found] == [0, 1, 40, 0, 41]
    assert [one["ts"] for one in found][1:3] == [5, "2026-01-31T12:00:00Z"]
    assert all(type(found[at]["ts"]) is int for at in (0, 3, 4))
    assert buffer.pending == 5
    buffer.close()


def test_a_seq_is_not_used_again_after_a_restart_even_if_its_reading_was_removed(tmp_path: Path) -> None:
    first = Buffer(tmp_path / "b.db")
    first.default_series("")
    rows = [first.append({"value": value, "sensorType": name}) for value in range(5) for name in ("a", "b")]
    first.remove([row.id for row in rows])
    first.close()
    second = Buffer(tmp_path / "b.db")
    assert second.pending == 0
    assert second.append({"value": 6, "sensorType": "a"}).seq == 5
    second.close()


def test_the_largest_seq_does_not_end_a_series(tmp_path: Path) -> None:
    for _ in range(2):
        buffer = Buffer(tmp_path / "b.db")
        buffer.default_series("t")
        buffer.append({"value": 1, "seq": LARGEST_SEQ})
        buffer.append({"value": 2})
        buffer.close()
    again = Buffer(tmp_path / "b.db")
    assert [one["seq"] for one in bodies(again)] == [LARGEST_SEQ, 0, LARGEST_SEQ, 1]
    again.close()


def test_a_series_that_an_earlier_version_has_counted_to_its_end_goes_on(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db")
    buffer.default_series("t")
    buffer.append({"value": 1, "seq": 6})
    buffer.close()
    with closing(sqlite3.connect(tmp_path / "b.db")) as database, database:
        database.execute("INSERT OR REPLACE INTO series VALUES ('t', ?), ('u', 3)", (LARGEST_SEQ + 1,))
    again = Buffer(tmp_path / "b.db")
    assert [again.append({"value": 2}).seq, again.append({"value": 3, "sensorType": "u"}).seq] == [7, 3]
    again.close()


def test_readings_without_a_sensor_type_count_with_those_that_name_the_device_s(tmp_path: Path) -> None:
    first = Buffer(tmp_path / "b.db")
    assert [first.append({"value": 1}).seq for _ in range(2)] == [0, 1]
    assert first.append({"value": 1, "sensorType": "t"}).seq == 2
    first.default_series("t")
    assert first.append({"value": 1, "sensorType": "t"}).seq == 3
    assert first.append({"value": 1}).seq == 4
    first.close()
    second = Buffer(tmp_path / "b.db")
    assert second.append({"value": 1, "sensorType": "t"}).seq == 5
    second.close()


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    program = (
        "import os, sys; from device.buffer import Buffer; buffer = Buffer(sys.argv[1])\n"
        "rows = [buffer.append({'value': n}) for n in range(3000)]; buffer.remove(row.id for row in rows[:1000])\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "b.db")], cwd=ROOT, check=False)
    buffer = Buffer(tmp_path / "b.db")
    assert [row.seq for row in buffer.after(0, 9999)] == list(range(1000, 3000))
    assert buffer.append({"value": 1}).seq == 3000
    buffer.close()


def test_one_file_is_of_one_device(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db")
    with pytest.raises(BufferInUse):
        Buffer(tmp_path / "b.db")
    program = "import sys; from device.buffer import Buffer; Buffer(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "b.db")], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert "BufferInUse" in done.stderr
    buffer.append({"value": 1})
    buffer.close()
    Buffer(tmp_path / "b.db").close()


def test_a_file_that_is_not_a_buffer_or_a_newer_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database at all, " * 100)
    with pytest.raises(BufferFailed, match="not a database"):
        Buffer(tmp_path / "text")
    buffer = Buffer(tmp_path / "b.db")
    buffer._database.execute("PRAGMA user_version=99")
    buffer.close()
    with pytest.raises(BufferFailed, match="newer version"):
        Buffer(tmp_path / "b.db")
    with pytest.raises(BufferFailed):
        Buffer(tmp_path / "away" / "b.db")


def test_a_damaged_file_is_refused_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    buffer = Buffer(path)
    for value in range(2000):
        buffer.append({"value": value})
    buffer._checkpoint()
    buffer.close()
    content = bytearray(path.read_bytes())
    content[8 * 4096 : -4096] = bytes(len(content) - 9 * 4096)
    path.write_bytes(content)
    for _ in range(2):  # the second attempt would raise BufferInUse if the first one kept the file open
        with pytest.raises(BufferFailed, match="malformed"):
            Buffer(path)


def test_a_read_that_fails_raises_the_library_s_own_error(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db")
    row = buffer.append({"value": 1})
    buffer._database.close()
    for read in (
        lambda: buffer.after(0, 1),
        lambda: buffer.with_ids([row.id]),
        buffer.missed,
        lambda: buffer.noted(""),
    ):
        with pytest.raises(BufferFailed):
            read()


@pytest.mark.parametrize(
    "reading", [{"value": float("nan")}, {"value": object()}, [1], "text", {"value": "x" * 100_000}]
)
def test_what_is_not_json_is_refused_and_takes_no_seq(reading: Any) -> None:
    buffer = Buffer(None)
    with pytest.raises((TypeError, ValueError)):
        buffer.append(reading)
    assert buffer.pending == 0
    assert buffer.append({"value": 1}).seq == 0
    buffer.close()


def test_the_largest_valid_reading_fits() -> None:
    tags = {f"{at:02}" + "k" * 62: "\U0001f600" * 256 for at in range(16)}
    text = "\U0001f600" * 256
    buffer = Buffer(None)
    row = buffer.append({"value": text, "location": text, "unit": "\U0001f600" * 32, "tags": tags, "quality": "good"})
    assert len(row.body) < MAX_READING_BYTES
    buffer.close()


def test_a_full_disk_refuses_readings_and_takes_them_again_when_there_is_room(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db")
    buffer._database.execute("PRAGMA max_page_count=20")
    taken: list[Row] = []
    with pytest.raises(BufferFailed, match="full"):
        taken.extend(buffer.append({"value": value}) for value in range(10_000))
    assert buffer.pending == len(taken) > 100
    buffer.remove([row.id for row in taken[:-1]])
    assert buffer.write_removals()
    assert buffer.append({"value": -1}).seq == len(taken)
    buffer.close()
    again = Buffer(tmp_path / "b.db")
    assert again.pending == 2
    again.close()


def test_it_is_written_to_the_disk_and_its_log_stays_small(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path / "b.db")
    for _ in range(20):
        rows = [buffer.append({"value": 1}) for _ in range(600)]
        buffer.remove([row.id for row in rows])
        buffer.write_removals()
        assert buffer.needs_sync
        buffer.sync()
        assert not buffer.needs_sync
    assert (tmp_path / "b.db-wal").stat().st_size < 16 << 20
    assert (tmp_path / "b.db").stat().st_size < 1 << 20
    assert (tmp_path / "b.db").stat().st_mode & 0o077 == 0
    buffer.close()


def test_the_log_stays_small_though_every_run_ends_in_a_kill_soon_after_its_start(tmp_path: Path) -> None:
    """No run makes as many transactions as there are between two checkpoints."""
    for boot in range(40):
        buffer = Buffer(tmp_path / f"{boot}.db")
        assert buffer.pending == (100 if boot else 0)
        buffer.remove([row.id for row in buffer.after(0, 1000)])
        buffer.write_removals()
        for _ in range(100):
            buffer.append({"value": 1})
        buffer.sync()
        for suffix in ("", "-wal"):  # what a kill leaves
            shutil.copy(tmp_path / f"{boot}.db{suffix}", tmp_path / f"{boot + 1}.db{suffix}")
        buffer.close()
        assert (tmp_path / f"{boot + 1}.db-wal").stat().st_size < 12 << 20


def test_the_outbox_gives_all_of_it_oldest_first_however_much_waits() -> None:
    buffer = Buffer(None)
    rows = [buffer.append({"value": value}) for value in range(10)]
    outbox = Outbox(buffer)
    for value in range(10, 2 * FRESH + 10):
        outbox.add(buffer.append({"value": value}))
    first = outbox.take(7, 10**6)
    assert first == rows[:7]
    outbox.put_back(first)
    assert outbox.oldest() == rows[0]
    outbox.discard_oldest(rows[0])
    numbers: list[int] = []
    while taken := outbox.take(300, 10_000):
        assert sum(len(row.body) + 1 for row in taken) <= 10_000
        numbers += [row.id for row in taken]
    assert numbers == list(range(2, 2 * FRESH + 11))
    buffer.close()


def test_the_outbox_gives_a_kept_reading_once_that_is_pending_again_before_it_was_read_from_the_file() -> None:
    buffer = Buffer(None)
    numbers = [buffer.append({"value": value}).id for value in range(2 * FRESH)]
    kept = [1, *numbers[2:FRESH]]
    buffer.keep(kept)
    buffer.write_removals()
    outbox = Outbox(buffer)
    outbox.put_back(buffer.return_kept(kept))
    taken = [*outbox.take(FRESH, 10**6), *outbox.take(1, 10**6)]
    for value in range(FRESH + 1):  # too many for its memory: it reads them from the file again
        numbers.append(buffer.append({"value": value}).id)
        outbox.add(buffer.with_ids(numbers[-1:])[0])
    while more := outbox.take(10, 10**6):
        taken += more
    assert not outbox
    assert [row.id for row in taken[:FRESH]] == [*kept, 2]
    assert sorted(row.id for row in taken) == numbers


@pytest.mark.parametrize(
    ("ts", "is_read_as"),
    [
        (5, 5),
        ("1970-01-01T00:00:01.5Z", 1500),
        ("1970-01-01T01:00:00+01:00", 0),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("2016-12-31T23:59:60.7Z", 1_483_228_800_000),
        ("1970-01-01t00:00:01.5z", 1500),
        ("2016-12-31t23:59:60z", 1_483_228_800_000),
        ("9999-12-31T23:59:60Z", 253_402_300_800_000),
        ("1970-01-01T00:00:00", None),
        ("soon", None),
        (True, None),
        (1.5, None),
    ],
)
def test_times_are_read_as_the_server_reads_them(ts: object, is_read_as: int | None) -> None:
    assert milliseconds(ts) == is_read_as


def test_a_reading_is_safe_after_a_failed_sync_though_the_log_has_a_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = Buffer(tmp_path / "buffer")
    buffer.append({"value": 1.0})
    with monkeypatch.context() as failing:
        failing.setattr("device.buffer._to_disk", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        with pytest.raises(BufferFailed):
            buffer.sync()
    buffer.append({"value": 2.0})
    assert buffer.needs_sync
    buffer.sync()

    # What the failed sync should have written never reached the disk, so nothing in the log can be read.
    shutil.copy(tmp_path / "buffer", tmp_path / "after the cut")
    buffer.close()
    left = Buffer(tmp_path / "after the cut")
    assert [json.loads(row.body)["value"] for row in left.after(0, 10)] == [1.0, 2.0]
    left.close()
