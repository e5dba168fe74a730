"""FILES → GATEWAY: recorded readings, sent once, as the devices that the rows or an option name.

Every file is read and checked before anything is sent. The identities of its readings depend on the file and its
options alone, so that an import that was interrupted, or is repeated, stores nothing twice.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.account import Account, Owner, open_with_key
from simulator.api import Api
from simulator.device import device_session
from simulator.errors import ReplayError, SimulatorError
from simulator.http_sender import HttpSender
from simulator.replay.file import Replay
from simulator.replay.readings import CheckedReplay, OnSurvey, check_replay, replay_rows
from simulator.replay.row import ReadingRow
from simulator.run_stats import RunStats
from simulator.socket_connection import RejectedItem

STOP_FLUSH_S = 8.0  # after a stop, for readings in flight

OnFileError = Callable[[Replay, ReplayError], None]
"""Called with a file, and why a row or a cell of it is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """What is imported, and where to. With `keep_going` rows that are no readings are left out.

    With `token`, an API key, `email` and `password` are not used.
    """

    url: str
    email: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    files: tuple[Replay, ...]
    keep_going: bool = False


async def check_files(plan: ImportPlan, *, on_survey: OnSurvey, on_refusal: OnFileError) -> list[CheckedReplay]:
    """Read and check all files; ReplayError if one cannot be read, or has a bad row (unless the plan keeps going)."""
    checked = []
    for file in plan.files:
        found = await check_replay(
            file,
            keep_going=plan.keep_going,
            on_survey=on_survey,
            on_refusal=lambda error, file=file: on_refusal(file, error),  # type: ignore[misc]
        )
        if any(not device for device, _ in found.series):
            raise file.error("its rows name no device: --device, or --device-column, says whose readings they are")
        checked.append(found)
    return checked


async def import_files(
    plan: ImportPlan, checked: list[CheckedReplay], *, stats: RunStats, stop: asyncio.Event, on_rejected: OnFileError
) -> None:
    """Send all readings until `stop` is set; failed devices are recorded in `stats`. Raises SimulatorError."""
    stats.expected = sum(found.readings for found in checked)
    stats.devices = len({device for found in checked for device, _ in found.series})
    async with device_session() as http:
        owner = await _opened(plan, Api(http, plan.url))
        for found in checked:
            if stop.is_set():
                return
            await _send(found, owner, stats, stop, on_rejected)


async def _opened(plan: ImportPlan, api: Api) -> Owner:
    """Return the owner that sends; SimulatorError if it cannot log in, or its API key may not import."""
    if plan.token:
        return await open_with_key(api, plan.token)
    account = Account(api, plan.email, plan.password, name=None)
    await account.open()
    return account


async def _send(
    found: CheckedReplay, owner: Owner, stats: RunStats, stop: asyncio.Event, on_rejected: OnFileError
) -> None:
    file = found.replay

    def rejected(row: ReadingRow, item: RejectedItem) -> None:
        on_rejected(file, file.error_at(row.line, "", f"rejected: {item.code} ({item.detail})"))

    rows = replay_rows(file, "", found.survey, keep_going=found.keep_going)
    try:
        with contextlib.closing(rows):
            await HttpSender(owner, stats, on_rejected=rejected).send(rows, stop, STOP_FLUSH_S)
    except SimulatorError as error:
        stats.device_failed(str(file.path), str(error))
