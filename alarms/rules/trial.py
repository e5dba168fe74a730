"""Tries a rule on what is stored: when it would have fired in the last day. A reader is asked, with the owner's token.

What is tried is the rule itself, on readings in their order; silences by when the gateways received them. `changed`,
`rate` and `gap` see the first reading of the day without the one before it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import aiohttp
import msgspec

from alarms.rules.point import Point
from alarms.rules.rule import Rule
from alarms.rules.state import OK, Phase, State, Trigger, advance
from runtime.fair_semaphore import FairSemaphore
from runtime.http.problems import Problem
from runtime.times import parse_rfc3339, rfc3339

DAY_MS = 86_400_000
MAX_SERIES = 100
MAX_READINGS = 1_000_000
MAX_FIRINGS = 1000
TIMEOUT_S = 30.0
RETRY_AFTER_S = 2
# A trial takes seconds of a core, in the process that evaluates.
MAX_AT_ONCE, MAX_AT_ONCE_OF_OWNER = 2, 1
MAX_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Firing:
    """From when an alarm would have been firing until when; None: still."""

    device: str
    sensor_type: str
    from_ms: int
    to_ms: int | None


@dataclass(slots=True)
class Trial:
    """What a trial has found, and in how much."""

    firings: list[Firing] = field(default_factory=list)
    series: int = 0
    readings: int = 0
    complete: bool = True


class _Series(msgspec.Struct, rename="camel"):
    device: str
    sensor_type: str


class _SeriesPage(msgspec.Struct, rename="camel"):
    items: list[_Series]
    next_cursor: str | None = None


class _Reading(msgspec.Struct, rename="camel"):
    ts: str
    seq: int
    value: bool | int | float | str
    received_at: str | None = None


_decode_series = msgspec.json.Decoder(_SeriesPage).decode
_decode_reading = msgspec.json.Decoder(_Reading).decode


class Trials:
    """Tries rules by asking a reader."""

    def __init__(self, session: aiohttp.ClientSession, reader_url: Callable[[], str]) -> None:
        """`reader_url` is asked at each trial: in one process with the reader, it is not known before that listens."""
        self._session = session
        self._reader_url = reader_url
        self._slots = FairSemaphore(MAX_AT_ONCE, MAX_AT_ONCE_OF_OWNER)

    async def run(self, rule: Rule, token: str, names: dict[str, str], now_ms: int) -> Trial:
        """Try a rule on the last day.

        Problem 503 while no reader answers, or too many rules are being tried; 403 where the reader refuses the token.
        """
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(MAX_WAIT_S):
                    await stack.enter_async_context(self._slots.slot(rule.owner))
            except TimeoutError:
                raise _unavailable("Too many rules are being tried at the moment.") from None
            return await self._run(rule, token, names, now_ms)

    async def _run(self, rule: Rule, token: str, names: dict[str, str], now_ms: int) -> Trial:
        trial = Trial()
        try:
            async for device in self._devices(rule, token, names):
                if trial.series == MAX_SERIES or trial.readings >= MAX_READINGS or len(trial.firings) >= MAX_FIRINGS:
                    trial.complete = False
                    break
                trial.series += 1
                await self._try(trial, rule, device, token, now_ms)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            raise _unavailable("No reader answers at the moment.") from error
        return trial

    async def _devices(self, rule: Rule, token: str, names: dict[str, str]) -> AsyncIterator[str]:
        cursor: str | None = None
        while True:
            parameters = {"limit": "1000"} | ({} if cursor is None else {"cursor": cursor})
            async with self._asked("/series", token, parameters) as response:
                page = _decode_series(await response.read())
            for one in page.items:
                known = one.sensor_type == rule.definition.sensor_type
                if known and rule.watches(one.device, names.get(one.device, one.device)):
                    yield one.device
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _try(self, trial: Trial, rule: Rule, device: str, token: str, now_ms: int) -> None:
        sensor_type = rule.definition.sensor_type
        parameters = {"device": device, "sensorType": sensor_type, "format": "ndjson", "from": rfc3339(now_ms - DAY_MS)}
        finder: _Changes | _Silences
        if rule.trigger is None:
            finder = _Silences(rule, device, now_ms)
        else:
            finder = _Changes(rule.trigger, device, sensor_type)
        async with self._asked("/readings", token, parameters) as response:
            async for line in response.content:
                reading = _decode_reading(line)
                finder.add(reading)
                trial.readings += 1
                if trial.readings >= MAX_READINGS:
                    trial.complete = False
                    break
        trial.firings += finder.finish(is_whole=trial.complete)[: MAX_FIRINGS - len(trial.firings)]

    @asynccontextmanager
    async def _asked(self, path: str, token: str, parameters: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self._reader_url().rstrip("/") + path
        headers = {"Authorization": f"Bearer {token}"}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with self._session.get(url, params=parameters, headers=headers, timeout=timeout) as response:
            if response.status in (401, 403):
                raise Problem(
                    403, "Trying a rule needs a token with the scope readings:read as well.", code="forbidden"
                )
            response.raise_for_status()
            yield response


def _unavailable(detail: str) -> Problem:
    return Problem(503, detail, code="unavailable", headers={"Retry-After": str(RETRY_AFTER_S)})


class _Changes:
    """Finds when an alarm would have fired in one series."""

    def __init__(self, trigger: Trigger, device: str, sensor_type: str) -> None:
        self._trigger = trigger
        self._names = (device, sensor_type)
        self._state: State = OK
        self._previous: Point | None = None
        self._firing_from: int | None = None
        self._found: list[Firing] = []

    def add(self, reading: _Reading) -> None:
        """Add the next reading."""
        point = Point(parse_rfc3339(reading.ts), reading.seq, reading.value)
        self._state, transition = advance(self._trigger, self._state, point, self._previous)
        self._previous = point
        if transition is None:
            return
        if transition.phase is Phase.FIRING:
            self._firing_from = point.ts_ms
        elif transition.phase is Phase.OK and self._firing_from is not None:
            self._found.append(Firing(*self._names, self._firing_from, point.ts_ms))
            self._firing_from = None

    def finish(self, *, is_whole: bool) -> list[Firing]:
        """Return what was found. `is_whole`: the last reading was the series' last one."""
        if self._firing_from is not None:
            self._found.append(Firing(*self._names, self._firing_from, None))
        return self._found


class _Silences:
    """Finds when nothing came of one series for as long as a rule says."""

    def __init__(self, rule: Rule, device: str, now_ms: int) -> None:
        self._for_ms = rule.for_ms
        self._schedule = rule.schedule
        self._names = (device, rule.definition.sensor_type)
        self._now_ms = now_ms
        self._received_ms: list[int] = []

    def add(self, reading: _Reading) -> None:
        """Add a reading."""
        self._received_ms.append(parse_rfc3339(reading.received_at or reading.ts))

    def finish(self, *, is_whole: bool) -> list[Firing]:
        """Return what was found. `is_whole`: the last reading was the series' last one."""
        times = sorted(self._received_ms)
        found = [
            Firing(*self._names, since, after)
            for before, after in pairwise(times)
            if (since := self._counts_from(before, after)) is not None
        ]
        if is_whole and times and (since := self._counts_from(times[-1], self._now_ms)) is not None:
            found.append(Firing(*self._names, since, None))
        return found

    def _counts_from(self, last_ms: int, until_ms: int) -> int | None:
        since_ms = last_ms + self._for_ms
        if self._schedule is not None and since_ms < until_ms:
            since_ms = self._schedule.first_covered(since_ms)
        return since_ms if since_ms < until_ms else None
