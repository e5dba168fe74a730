"""A bounded cache of the catalogues of all owners, built on demand.

A catalogue is built from MongoDB (series) and auth (registered devices), once for all concurrent requests. It is fresh
for at least a second and for 20 times the time it took to build: at most a twentieth of the time is spent building.
After that it is served stale for the same time while the next one is built in the background.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from bson import decode_all

from reader.from_auth import DevicesUnavailable, FromAuth, RegisteredDevice, RegisteredDevices
from reader.history.catalogue import Catalogue, build_catalogue
from reader.history.from_mongodb import FromMongoDB
from reader.metrics import ReaderMetrics
from reader.responses import AS_STORED
from runtime.fair_semaphore import FairSemaphore
from runtime.logs import logger
from runtime.lru_cache import LRUCache

log = logger("reader.catalogue")

MIN_TTL_S = 1.0
TTL_FACTOR = 20
MAX_TTL_S = 60.0
# While device names are missing that auth may return soon.
TTL_WITHOUT_NAMES_S = 5.0
# Series of one owner, and of all cached catalogues, some 500 bytes each: beyond it the least recently used catalogues
# are evicted, and rebuilt on demand.
MAX_SERIES = 100_000
MAX_CACHED_SERIES = 200_000
MAX_CACHED_DEVICES = 200_000
# Catalogues built at the same time; owners take turns.
MAX_CONCURRENT_BUILDS = 4
# How long a request waits for device names; later requests get them once they have arrived.
NAMES_WAIT_S = 0.6
# How long device names count as current, and how long they are used while auth does not respond.
NAMES_FRESH_S = 60.0
NAMES_STALE_S = 600.0
# Lists up to this size are sorted inline, in some 3 ms; longer ones in a thread. A series takes some 100 bytes.
INLINE_MAX_DEVICES = 300
INLINE_MAX_BYTES = 30_000

Key = tuple[str, tuple[str, ...] | None]
"""An owner, and the devices that the token is limited to, if it is: no two of these share a list."""
NO_DEVICES = RegisteredDevices([], b"")


class _Cached(NamedTuple):
    catalogue: Catalogue
    digest: bytes
    fresh_until: float = 0.0
    stale_until: float = 0.0


class CatalogueCache:
    """The catalogues of all owners, each visible only to its owner's tokens with the same devices."""

    def __init__(self, history: FromMongoDB, auth: FromAuth, metrics: ReaderMetrics) -> None:
        self._history = history
        self._auth = auth
        self._metrics = metrics
        self._cache: LRUCache[Key, _Cached] = LRUCache(MAX_CACHED_SERIES)
        # The registered devices, and when auth returned them.
        self._devices: LRUCache[Key, tuple[RegisteredDevices, float]] = LRUCache(MAX_CACHED_DEVICES)
        self._builds: dict[Key, asyncio.Task[Catalogue]] = {}
        self._fetches: dict[Key, asyncio.Task[RegisteredDevices]] = {}
        self._slots = FairSemaphore(MAX_CONCURRENT_BUILDS, 1)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["CatalogueCache"]:
        """Cancel running builds when the context is left."""
        try:
            yield self
        finally:
            tasks: list[asyncio.Task[Catalogue] | asyncio.Task[RegisteredDevices]]
            tasks = [*self._builds.values(), *self._fetches.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def get(self, owner: str, devices: tuple[str, ...] | None, token: str) -> Catalogue:
        """Return the catalogue of an owner; HistoryUnavailable when MongoDB does not respond.

        `devices`: those that the token is limited to, or None.
        """
        key = (owner, devices)
        cached, now = self._cache.get(key), time.monotonic()
        if cached is not None and now < cached.fresh_until:
            return cached.catalogue
        build = self._builds.get(key)
        if build is None:
            build = self._builds[key] = asyncio.ensure_future(self._build(key, token))
            build.add_done_callback(lambda built: self._on_built(key, built))
        if cached is not None and now < cached.stale_until:
            return cached.catalogue
        return await asyncio.shield(build)

    async def _build(self, key: Key, token: str) -> Catalogue:
        owner, devices = key
        async with self._slots.slot(owner):
            started = time.monotonic()
            fetch = self._fetch_devices(key, token)
            stored = await self._history.series_documents(owner, MAX_SERIES + 1, devices)
            registered, names_current = await self._registered(key, fetch)
            built = await self._build_if_changed(key, stored, registered)
            took_s = time.monotonic() - started
        ttl_s = min(max(MIN_TTL_S, TTL_FACTOR * took_s), MAX_TTL_S if names_current else TTL_WITHOUT_NAMES_S)
        until = time.monotonic() + ttl_s
        self._cache.put(
            key, built._replace(fresh_until=until, stale_until=until + ttl_s), len(built.catalogue) + _weight(key)
        )
        self._metrics.catalogue_seconds.observe(took_s)
        self._metrics.catalogue_series.set(self._cache.value_weight)
        return built.catalogue

    async def _build_if_changed(self, key: Key, stored: list[bytes], registered: RegisteredDevices) -> _Cached:
        """Build a catalogue, or return the cached one if its series and devices are unchanged, as they mostly are."""
        digest = hashlib.blake2b(registered.digest, digest_size=16)
        for documents in stored:
            digest.update(documents)
        cached, found = self._cache.get(key), digest.digest()
        if cached is not None and cached.digest == found:
            return cached
        if sum(map(len, stored)) <= INLINE_MAX_BYTES and len(registered.devices) <= INLINE_MAX_DEVICES:
            return _Cached(_catalogue(stored, registered.devices), found)
        return _Cached(await asyncio.to_thread(_catalogue, stored, registered.devices), found)

    def _on_built(self, key: Key, built: "asyncio.Task[Catalogue]") -> None:
        self._builds.pop(key, None)
        if not built.cancelled() and (error := built.exception()) is not None:  # waiting requests get the same error
            log.debug("A catalogue could not be built.", error=str(error))

    def _fetch_devices(self, key: Key, token: str) -> "asyncio.Task[RegisteredDevices]":
        """Fetch the devices of a key, joining a running fetch: a long list takes longer than a request waits."""
        fetch = self._fetches.get(key)
        if fetch is None:
            fetch = self._fetches[key] = asyncio.ensure_future(self._auth.devices(*key, token))
            fetch.add_done_callback(lambda fetched: self._on_fetched(key, fetched))
        return fetch

    def _on_fetched(self, key: Key, fetched: "asyncio.Task[RegisteredDevices]") -> None:
        self._fetches.pop(key, None)
        if not fetched.cancelled() and fetched.exception() is None:
            self._devices.put(key, (fetched.result(), time.monotonic()), len(fetched.result().devices) + _weight(key))

    async def _registered(self, key: Key, fetch: "asyncio.Task[RegisteredDevices]") -> tuple[RegisteredDevices, bool]:
        """Return the registered devices known, and whether they are current."""
        done, _ = await asyncio.wait((fetch,), timeout=NAMES_WAIT_S)
        if done:
            error = fetch.exception()
            if error is None:
                return fetch.result(), True
            if not isinstance(error, DevicesUnavailable):
                log.error("Device names could not be fetched.", exc_info=error)
            elif error.refused:
                return NO_DEVICES, False
        registered, fetched_at = self._devices.get(key) or (NO_DEVICES, float("-inf"))
        age_s = time.monotonic() - fetched_at
        if age_s > NAMES_FRESH_S:
            self._metrics.names_missing.inc()
        return (registered if age_s <= NAMES_STALE_S else NO_DEVICES), age_s <= NAMES_FRESH_S


def _weight(key: Key) -> int:
    """Return the weight of the ids in a key."""
    return len(key[1] or ())


def _catalogue(stored: list[bytes], devices: list[RegisteredDevice]) -> Catalogue:
    series = [
        (document["_id"]["device"], document["_id"]["sensorType"])
        for documents in stored
        for document in decode_all(documents, AS_STORED)
    ]
    return build_catalogue(series[:MAX_SERIES], devices, truncated=len(series) > MAX_SERIES)
