"""ALARMS → PERSISTER: which series rules watch, followed like revocations: whole at first, and then what has changed.

Until the list was fetched once, every series counts as watched: what nobody watches is dropped by whoever evaluates,
and what was not announced would be missed. While `alarms` cannot be reached, the last list holds.
"""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from broker.alarms import Watch, Watches, decode_watches
from persister.known_series import key_of_name
from runtime.logs import logger

log = logger("persister.watched")

POLL_EVERY_S = 2.0
FETCH_TIMEOUT_S = 5.0
# A deleted owner's rules are gone without a change: everything is fetched again this often.
WHOLE_EVERY_POLLS = 300
# Names of series whose answer is remembered, some 200 bytes each.
MAX_NAMES = 100_000

FetchWatched = Callable[[str | None], Awaitable[bytes]]
"""The body of `GET /alarms/watched?since=`; OSError, aiohttp's ClientError or TimeoutError."""


class WatchedSeries:
    """Which series are watched."""

    def __init__(self, fetch: FetchWatched) -> None:
        self._fetch = fetch
        self._watches: dict[tuple[str, str], Watch] = {}
        # By owner and sensorType: the devices by rule, None for all.
        self._devices: dict[tuple[str, str], dict[str, frozenset[str] | None]] = {}
        self._cursor: str | None = None
        self._known: dict[bytes, bool] = {}
        self._polls = 0
        self._is_failing = False
        self.is_loaded = False

    @property
    def none_at_all(self) -> bool:
        """Whether nothing is watched: the usual case, which costs nothing."""
        return self.is_loaded and not self._devices

    def watches(self, name: bytes) -> bool:
        """Return whether a series is watched, by the bytes that name it."""
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= MAX_NAMES:
                self._known.clear()
            found = self._known[name] = self._watches_name(name)
        return found

    def _watches_name(self, name: bytes) -> bool:
        if not self.is_loaded:
            return True
        key = key_of_name(name)
        devices = self._devices.get((key["owner"], key["sensorType"]), {})
        return any(some is None or key["device"] in some for some in devices.values())

    async def follow(self) -> None:
        """Fetch the list, and what changes of it; never returns."""
        while True:
            await self.poll()
            await asyncio.sleep(POLL_EVERY_S)

    async def poll(self) -> None:
        """Fetch once; if that fails, the list stays as it is."""
        self._polls += 1
        try:
            since = None if self._polls % WHOLE_EVERY_POLLS == 1 else self._cursor
            watches = decode_watches(await self._fetch(since))
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            self._polls -= self._cursor is None
            if not self._is_failing:
                why = f"{type(error).__name__}: {error}"
                log.warning("What rules watch could not be fetched.", error=why, loaded=self.is_loaded)
            self._is_failing = True
            return
        if self._is_failing:
            log.info("What rules watch is fetched again.")
        self._is_failing = False
        self._apply(watches)

    def _apply(self, watches: Watches) -> None:
        changed = bool(watches.items) or not self.is_loaded
        if watches.whole:
            self._watches.clear()
            self._devices.clear()
            changed = True
        for one in watches.items:
            self._replace(one)
        self._cursor, self.is_loaded = watches.cursor, True
        if changed:
            self._known.clear()

    def _replace(self, new: Watch) -> None:
        before = self._watches.pop((new.owner, new.rule), None)
        if before is not None:
            place = (before.owner, before.sensor_type)
            rules = self._devices[place]
            del rules[new.rule]
            if not rules:
                del self._devices[place]
        if not new.removed:
            self._watches[new.owner, new.rule] = new
            devices = None if new.devices is None else frozenset(new.devices)
            self._devices.setdefault((new.owner, new.sensor_type), {})[new.rule] = devices


def fetch_watched_over_http(session: aiohttp.ClientSession, alarms_url: str) -> FetchWatched:
    """Return a function that fetches from the alarms service at `alarms_url`."""
    url = alarms_url.rstrip("/") + "/alarms/watched"

    async def fetch(since: str | None) -> bytes:
        parameters = {} if since is None else {"since": since}
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        async with session.get(url, params=parameters, timeout=timeout) as response:
            response.raise_for_status()
            return await response.read()

    return fetch
