"""The catalogues of all owners who search: made when one asks, kept for a while, bounded together.

A catalogue is made from MongoDB (what is stored) and auth (what is registered), once for all who ask at a time. It is
kept for at least a second and the longer, the longer it took: at most a twentieth of the time goes into making it. Once
it is older it is shown for as long again, while the next one is made behind it.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from bson import decode_all

from reader.from_auth import DevicesUnknown, FromAuth, Registered, RegisteredDevice
from reader.history.bounded import Bounded
from reader.history.catalogue import Catalogue, catalogue_of
from reader.history.from_mongodb import FromMongoDB
from reader.history.places import Places
from reader.metrics import ReaderMetrics
from reader.responses import AS_STORED
from runtime.logs import logger

log = logger("reader.history.catalogues")

KEPT_S = 1.0
KEPT_TIMES = 20
KEPT_MOST_S = 60.0
# While names are missing that auth may tell soon.
KEPT_WITHOUT_NAMES_S = 5.0
# Series of one owner, and of all catalogues that are kept, some 500 bytes each: beyond it the ones that were not asked
# for the longest are dropped, and made anew when they are.
MAX_SERIES = 100_000
MAX_KEPT_SERIES = 200_000
MAX_KEPT_DEVICES = 200_000
# Catalogues that are made together; who waits takes turns.
MADE_AT_ONCE = 4
# How long an answer waits for names; they are shown when they have come.
NAMES_WAIT_S = 0.6
# For so long names count as those of now, and for so long they are shown while auth does not answer.
NAMES_ARE_NEW_S = 60.0
NAMES_OUTLIVE_S = 600.0
# So many are sorted at once, in some 3 ms; more are sorted in a thread. A series takes some 100 bytes.
FEW = 300
FEW_BYTES = 30_000

Key = tuple[str, bool]
"""An owner, and whether the token may list the owner's devices: who may not is shown none of their names."""
NOBODY = Registered([], b"")


class _Kept(NamedTuple):
    catalogue: Catalogue
    digest: bytes
    fresh_until: float = 0.0
    shown_until: float = 0.0


class Catalogues:
    """Everybody's, each for its owner alone."""

    def __init__(self, history: FromMongoDB, auth: FromAuth, metrics: ReaderMetrics) -> None:
        self._history = history
        self._auth = auth
        self._metrics = metrics
        self._kept: Bounded[Key, _Kept] = Bounded(MAX_KEPT_SERIES)
        # The devices of an owner, and when auth has told them.
        self._devices: Bounded[str, tuple[Registered, float]] = Bounded(MAX_KEPT_DEVICES)
        self._making: dict[Key, asyncio.Task[Catalogue]] = {}
        self._asking: dict[str, asyncio.Task[Registered]] = {}
        self._places = Places(MADE_AT_ONCE, 1)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Catalogues"]:
        """End what is still being made with the context."""
        try:
            yield self
        finally:
            tasks: list[asyncio.Task[Catalogue] | asyncio.Task[Registered]]
            tasks = [*self._making.values(), *self._asking.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def of(self, owner: str, token: str, *, may_list: bool) -> Catalogue:
        """Return the catalogue of an owner; HistoryUnavailable when MongoDB does not answer.

        `may_list`: the token may list the owner's devices.
        """
        key = (owner, may_list)
        kept, now = self._kept.get(key), time.monotonic()
        if kept is not None and now < kept.fresh_until:
            return kept.catalogue
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = asyncio.ensure_future(self._make(key, token))
            making.add_done_callback(lambda made: self._made(key, made))
        if kept is not None and now < kept.shown_until:
            return kept.catalogue
        return await asyncio.shield(making)

    async def _make(self, key: Key, token: str) -> Catalogue:
        owner, may_list = key
        async with self._places.one(owner):
            started = time.monotonic()
            asking = self._ask(owner, token) if may_list else None
            stored = await self._history.series_documents(owner, MAX_SERIES + 1)
            registered, told = (NOBODY, True) if asking is None else await self._registered(owner, asking)
            made = await self._made_of(key, stored, registered)
            took_s = time.monotonic() - started
        kept_s = min(max(KEPT_S, KEPT_TIMES * took_s), KEPT_MOST_S if told else KEPT_WITHOUT_NAMES_S)
        until = time.monotonic() + kept_s
        self._kept.keep(key, made._replace(fresh_until=until, shown_until=until + kept_s), len(made.catalogue))
        self._metrics.catalogue_seconds.observe(took_s)
        self._metrics.catalogue_series.set(self._kept.held)
        return made.catalogue

    async def _made_of(self, key: Key, stored: list[bytes], registered: Registered) -> _Kept:
        """Return the catalogue of what is stored and registered: mostly that is what it was the last time."""
        digest = hashlib.blake2b(registered.digest, digest_size=16)
        for documents in stored:
            digest.update(documents)
        kept, found = self._kept.get(key), digest.digest()
        if kept is not None and kept.digest == found:
            return kept
        if sum(map(len, stored)) <= FEW_BYTES and len(registered.devices) <= FEW:
            return _Kept(_catalogue(stored, registered.devices), found)
        return _Kept(await asyncio.to_thread(_catalogue, stored, registered.devices), found)

    def _made(self, key: Key, made: "asyncio.Task[Catalogue]") -> None:
        self._making.pop(key, None)
        if not made.cancelled() and (error := made.exception()) is not None:  # who waits for it is told the same
            log.debug("A list of series could not be made.", error=str(error))

    def _ask(self, owner: str, token: str) -> "asyncio.Task[Registered]":
        """Ask for the devices of an owner, or go on asking: a long list takes longer than an answer waits."""
        asking = self._asking.get(owner)
        if asking is None:
            asking = self._asking[owner] = asyncio.ensure_future(self._auth.devices(owner, token))
            asking.add_done_callback(lambda asked: self._asked(owner, asked))
        return asking

    def _asked(self, owner: str, asked: "asyncio.Task[Registered]") -> None:
        self._asking.pop(owner, None)
        if not asked.cancelled() and asked.exception() is None:
            self._devices.keep(owner, (asked.result(), time.monotonic()), len(asked.result().devices))

    async def _registered(self, owner: str, asking: "asyncio.Task[Registered]") -> tuple[Registered, bool]:
        """Return the devices that are registered as far as is known, and whether that is what they are now."""
        done, _ = await asyncio.wait((asking,), timeout=NAMES_WAIT_S)
        if done:
            error = asking.exception()
            if error is None:
                return asking.result(), True
            if not isinstance(error, DevicesUnknown):
                log.error("The names of devices could not be read.", exc_info=error)
            elif error.refused:
                return NOBODY, False
        registered, told_at = self._devices.get(owner) or (NOBODY, float("-inf"))
        age_s = time.monotonic() - told_at
        if age_s > NAMES_ARE_NEW_S:
            self._metrics.names_missing.inc()
        return (registered if age_s <= NAMES_OUTLIVE_S else NOBODY), age_s <= NAMES_ARE_NEW_S


def _catalogue(stored: list[bytes], devices: list[RegisteredDevice]) -> Catalogue:
    series = [
        (document["_id"]["device"], document["_id"]["sensorType"])
        for documents in stored
        for document in decode_all(documents, AS_STORED)
    ]
    return catalogue_of(series[:MAX_SERIES], devices, truncated=len(series) > MAX_SERIES)
