"""What files hold, as tests check it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simulator.errors import ReplayError
from simulator.replay.file import Replay, TextOptions
from simulator.replay.readings import CheckedReplay, check_replay, replay_rows
from simulator.replay.report import report_lines
from simulator.replay.row import ReadingRow
from simulator.replay.times import TimeOptions
from simulator.replay.zones import Zone

DEVICE = "d:1"
Series = dict[str, list[tuple[int, Any]]]
"""Times in milliseconds since 1970 and values, by sensor type."""


def file(path: Path, *lines: str, written_as: str = "utf-8", **options: Any) -> Replay:
    """Return a file of these lines, or one that exists, to be imported as DEVICE."""
    if lines:
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(written_as))
    text = {name: options.pop(name) for name in ("encoding", "delimiter", "decimal", "skip_rows") if name in options}
    rules = {name: options.pop(name) for name in ("repeated", "skipped") if name in options}
    zone = options.pop("zone", None)
    times = TimeOptions(
        format=options.pop("time_format", None),
        zone=Zone(zone, **rules) if zone else None,
        year=options.pop("year", None),
    )
    return Replay(path, device=DEVICE, text=TextOptions(**text), times=times, **options)


async def series_of(replay: Replay) -> Series:
    """Return what a file holds."""
    return series_in(await check_replay(replay))


def series_in(checked: CheckedReplay) -> Series:
    """Return what a checked file holds."""
    return _series(replay_rows(checked.replay, "", checked.survey, keep_going=checked.keep_going))


def unchecked_series(replay: Replay) -> Series:
    """Return what a file holds, without the checks that each reading can be stored, which take half of the time."""
    return _series(replay_rows(replay, ""))


def _series(rows: Iterable[ReadingRow]) -> Series:
    found: Series = {}
    for row in rows:
        found.setdefault(row.reading.sensor_type, []).append((row.reading.ts, row.reading.value))
    return found


async def report_of(replay: Replay) -> str:
    """Return what is told about a file, without its name."""
    return report_on(await check_replay(replay))


def report_on(checked: CheckedReplay) -> str:
    """Return what is told about a checked file, without its name."""
    replay = checked.replay
    return "\n".join(report_lines(replay, checked.survey)).replace(f"{replay.path}: ", "")


async def kept_of(replay: Replay) -> tuple[CheckedReplay, list[ReplayError]]:
    """Return what is left of a file without its bad rows, and those."""
    refused: list[ReplayError] = []
    return await check_replay(replay, keep_going=True, on_refusal=refused.append), refused


async def refusal(replay: Replay) -> str:
    """Return why a file is refused."""
    try:
        await check_replay(replay)
    except ReplayError as error:
        return str(error)
    raise AssertionError(f"{replay.path} is not refused")
