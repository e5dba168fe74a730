"""ALARMS → PERSISTER: which series rules watch, followed like revocations: whole at first, and then what has changed.

Until the list was fetched once, every series counts as watched: `alarms` drops readings that no rule watches, and would
miss those that were not announced. While `alarms` cannot be reached, the last list holds.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

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
# Names of series of which is remembered whether they are watched, some 200 bytes each.
MAX_NAMES = 100_000

Series = tuple[str, str, str]
"""Owner, device, sensorType."""

FetchWatched = Callable[[str | None], Awaitable[bytes]]
"""The body of `GET /alarms/watched?since=`; OSError, aiohttp's ClientError or TimeoutError."""


class WatchedSeries:
    """Which series are watched."""

    def __init__(self, fetch: FetchWatched) -> None:
        self._fetch = fetch
        self._watches: dict[tuple[str, str], Watch] = {}
        # How many rules watch, by owner and sensorType: a device, or (None) all.
        self._rules: dict[tuple[str, str], Counter[str | None]] = {}
        self._cursor: str | None = None
        # Names of series that are known to be watched, and of those that are not: documents without a key are never.
        self._watched: dict[bytes, Series] = {}
        self._unwatched = {b""}
        self._polls = 0
        self._is_failing = False
        self.is_loaded = False

    def of(self, names: Collection[bytes]) -> list[bytes]:
        """Return those of these series that are watched, by the bytes that name them; for most batches, none.

        That takes a look into a set for each name, some 30 ns.
        """
        if (self.is_loaded and not self._rules) or self._unwatched.issuperset(names):
            return []
        return [name for name in names if name not in self._unwatched and self._watches_name(name)]

    def series_of(self, name: bytes) -> Series:
        """Return owner, device and sensorType of a watched series."""
        return self._watched.get(name) or _series_of(name)

    def _watches_name(self, name: bytes) -> bool:
        if name in self._watched or not self.is_loaded:
            return True
        if len(self._watched) + len(self._unwatched) >= MAX_NAMES:
            self._forget_names()
        series = owner, device, sensor_type = _series_of(name)
        rules = self._rules.get((owner, sensor_type))
        if rules is not None and (device in rules or None in rules):
            self._watched[name] = series
            return True
        self._unwatched.add(name)
        return False

    def _forget_names(self) -> None:
        self._watched.clear()
        self._unwatched = {b""}

    async def follow(self) -> None:
        """Fetch the list, and what changes of it; never returns."""
        while True:
            await self.poll()
            await asyncio.sleep(POLL_EVERY_S)

    async def poll(self) -> None:
        """Fetch once; if that fails, the list stays as it is."""
        self._polls += 1
        since = None if self._polls % WHOLE_EVERY_POLLS == 1 else self._cursor
        try:
            watches = await self._fetch_all(since)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            self._polls -= since is None  # the next poll is for the whole list again
            if not self._is_failing:
                why = f"{type(error).__name__}: {error}"
                log.warning("What rules watch could not be fetched.", error=why, loaded=self.is_loaded)
            self._is_failing = True
            return
        if self._is_failing:
            log.info("What rules watch is fetched again.")
        self._is_failing = False
        self._apply(watches)

    async def _fetch_all(self, since: str | None) -> Watches:
        """Return all changes since a cursor as one: until all are there, the list stays as it is."""
        found = decode_watches(await self._fetch(since))
        while found.more:
            more = decode_watches(await self._fetch(found.cursor))
            items = more.items if more.whole else found.items + more.items
            found = Watches(items, more.cursor, found.whole or more.whole, more.more)
        return found

    def _apply(self, watches: Watches) -> None:
        changed = bool(watches.items) or not self.is_loaded
        if watches.whole:
            self._watches.clear()
            self._rules.clear()
            changed = True
        for one in watches.items:
            self._replace(one)
        self._cursor, self.is_loaded = watches.cursor, True
        if changed:
            self._forget_names()

    def _replace(self, new: Watch) -> None:
        before = self._watches.pop((new.owner, new.rule), None)
        if before is not None:
            place = (before.owner, before.sensor_type)
            self._rules[place] -= Counter(_devices_of(before))
            if not self._rules[place]:
                del self._rules[place]
        if not new.removed:
            self._watches[new.owner, new.rule] = new
            self._rules.setdefault((new.owner, new.sensor_type), Counter()).update(_devices_of(new))


def _devices_of(watch: Watch) -> set[str | None]:
    return {None} if watch.devices is None else set(watch.devices)


def _series_of(name: bytes) -> Series:
    key = key_of_name(name)
    return key["owner"], key["device"], key["sensorType"]


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
