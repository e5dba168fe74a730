"""The newest reading of each of many series, over all places.

What is newest in the places after `readings` is remembered, and holds until a collection that was sealed since has
been compacted: from then on a newer reading may be in a block.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import random
from struct import Struct
from typing import Any, Final

import bson
from bson.datetime_ms import DatetimeMS

from readings.collections import READINGS
from readings.document import date_ms, position_of
from readings.filters import in_time_range
from readings.keys import Position, reading_key, series_key
from runtime.times import now_ms
from storage.codec.packed import BlockError
from storage.places.documents import READABLE, LiveBlock, series_of
from storage.places.each import Document, Names, Pipeline, find_each, names
from storage.places.first import FirstReadings
from storage.places.moving import unless_moved
from storage.places.names import BEGINNING, BLOCKS, PIECES, UNSEALED, sealed_name
from storage.places.pieces import of_pieces
from storage.places.reading import Places
from storage.places.remembered import make_room
from storage.places.state import State
from storage.places.window import Window

# Series remembered, some 420 bytes each; decoded, a document alone takes twice that.
MAX_KNOWN = 50_000
# An operator may erase an owner or restore a copy: what is remembered is looked up again after this time, or after half
# of it, so that not all series are at once. It is forgotten when a later one is remembered: devices come and go.
KNOWN_S = 300.0
# In front of what is remembered of a reading: ts in ms, seq, seal number.
_RANK: Final = Struct("<qqq")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A reading that may be the newest: of two at one position the one with the lower seal number is."""

    position: Position
    number: int
    found: Document | bytes
    """Its document, or all of it but `_id` as BSON."""

    @property
    def rank(self) -> tuple[Position, int]:
        return self.position, -self.number

    def document(self, owner: str, series: Names) -> Document:
        if not isinstance(self.found, bytes):
            return self.found
        key = reading_key(owner, *series, *self.position)
        return {"_id": key, **bson.decode(self.found, READABLE)}

    def packed(self) -> bytes:
        """Return the same in little memory, without the names of its series."""
        found = self.found
        if not isinstance(found, bytes):
            found = bson.encode({name: value for name, value in found.items() if name != "_id"})
        return _RANK.pack(*self.position, self.number) + found

    @classmethod
    def unpacked(cls, packed: bytes) -> "_Candidate":
        ts_ms, seq, number = _RANK.unpack_from(packed)
        return cls((ts_ms, seq), number, packed[_RANK.size :])


@dataclass(frozen=True, slots=True)
class _Known:
    """The newest reading in the places after `readings`, if any, of all that was sealed under numbers below `final`."""

    packed: bytes
    final: int
    at: float

    @property
    def newest(self) -> _Candidate | None:
        return _Candidate.unpacked(self.packed) if self.packed else None

    def holds(self, state: State) -> bool:
        later = sum(number >= self.final for number in state.waiting)
        return later == state.highest + 1 - self.final and not self.is_old

    @property
    def is_old(self) -> bool:
        return time.monotonic() - self.at >= KNOWN_S


def _name(owner: str, series: Names) -> str:
    """Return the names of a series as one text, which takes a third of the memory; no name has a line break."""
    return "\n".join((owner, *series))


class Newest:
    """Finds newest readings in one database. Raises the driver's errors."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def __len__(self) -> int:
        """Return how many series are remembered."""
        return len(self._known)

    async def of(self, owner: str, series: Sequence[Names]) -> dict[Names, Document]:
        """Return the newest reading of each series of an owner that has one, as a document.

        All in one query a place: some dozens of series are best.
        """
        async with self._places.session() as session:
            hot = await self._last(READINGS, UNSEALED, owner, series, session)
            state = await self._places.state(session)
            known = {
                one: found for one in series if (found := self._known.get(_name(owner, one))) and found.holds(state)
            }
            behind = {one: newest for one, found in known.items() if (newest := found.newest)}
            for number in state.waiting:
                asked = [one for one in series if one not in known or number >= known[one].final]
                _keep_newest(behind, await self._last(sealed_name(number), number, owner, asked, session))
            if not await self._are_there([one.final for one in known.values()], state, session):
                known = {}
            unknown = [one for one in series if one not in known]
            if state.has_blocks and unknown:
                _keep_newest(behind, _candidates(await self._last_pieces(owner, unknown, session)))
                _keep_newest(behind, await self._blocks(owner, unknown, session))
        for one in unknown:
            at = time.monotonic() - random() * KNOWN_S / 2
            newest = behind.get(one)
            self._remember(_name(owner, one), _Known(newest.packed() if newest else b"", state.final, at))
        _keep_newest(behind, hot)
        return {one: candidate.document(owner, one) for one, candidate in self._retained(behind, state)}

    async def _are_there(self, finals: list[int], state: State, session: Any) -> bool:
        """Return whether the collections sealed after what is known are still there, now that they were asked.

        One that has been dropped has nothing to find; its number leaves the list only later.
        """
        lowest = min(finals, default=UNSEALED)
        for number in state.waiting:
            if number >= lowest and not await self._places.has(sealed_name(number), {}, session):
                return False
        return True

    def _remember(self, name: str, known: _Known) -> None:
        make_room(self._known, MAX_KNOWN)
        self._known[name] = known
        self._known.move_to_end(name)

    async def before(self, owner: str, series: Sequence[Names], before_ms: int) -> dict[Names, Document]:
        """Return the newest reading of each series before a time, as `of`; nothing of it is remembered."""
        opened: set[Names] = set()
        async with self._places.session() as session:
            found = await self._last(READINGS, UNSEALED, owner, series, session, before_ms)
            state = await self._places.state(session)
            for number in state.waiting:
                _keep_newest(found, await self._last(sealed_name(number), number, owner, series, session, before_ms))
            if state.has_blocks:
                for last in (
                    await self._last_pieces(owner, series, session, before_ms),
                    await self._last_heads(owner, series, session, before_ms),
                ):
                    candidates = _candidates(last)
                    # Of one that goes on after that time, only its columns say what is newest before.
                    opened |= {one for one, candidate in candidates.items() if candidate.position[0] >= before_ms}
                    opened |= {names(one["_id"]) for one in last if one.get("pending")}
                    _keep_newest(found, candidates)
        documents = {
            one: candidate.document(owner, one) for one, candidate in self._retained(found, state) if one not in opened
        }
        for one in opened:
            window = Window(series_key(owner, *one), end=(before_ms, BEGINNING[1]), descending=True)
            for raw in await self._places.documents(window, 1):
                documents[one] = bson.decode(raw, READABLE)
        return documents

    def _retained(self, found: dict[Names, _Candidate], state: State) -> Iterator[tuple[Names, _Candidate]]:
        """Yield what is not past its retention."""
        now = now_ms()
        for one, candidate in found.items():
            oldest_ms = state.oldest_ms(one[1], now)
            if oldest_ms is None or candidate.position[0] >= oldest_ms:
                yield one, candidate

    async def _last(
        self, name: str, number: int, owner: str, series: Sequence[Names], session: Any, before_ms: int | None = None
    ) -> dict[Names, _Candidate]:
        """Return the newest document of each series in `readings` or a sealed collection."""
        filters = (in_time_range(series_key(owner, *one), to_ms=before_ms) for one in series)
        parts: list[Pipeline] = [[{"$match": one}, {"$sort": {"_id": -1}}, {"$limit": 1}] for one in filters]
        found = await find_each(self._places.collection(name), parts, session)
        return {names(one["_id"]): _Candidate(position_of(one), number, one) for one in found}

    async def _last_pieces(
        self, owner: str, series: Sequence[Names], session: Any, before_ms: int | None = None
    ) -> list[Document]:
        """Return the newest reading of the pieces of each series that begin before a time."""
        begins = {} if before_ms is None else {"first.ts": {"$lt": DatetimeMS(before_ms)}}
        parts: list[Pipeline] = [
            [
                {"$match": of_pieces(key) | begins},
                {"$sort": {"last.ts": -1, "last.seq": -1, "lastSeal": 1}},
                {"$limit": 1},
                {"$project": {"last": "$newest", "lastSeal": 1}},
            ]
            for key in (series_key(owner, *one) for one in series)
        ]
        return await find_each(self._places.collection(PIECES), parts, session)

    async def _last_heads(
        self, owner: str, series: Sequence[Names], session: Any, before_ms: int | None = None
    ) -> list[Document]:
        """Return the newest reading of the last block of each series that begins before a time; it may be pending."""
        last: Pipeline = [
            {"$sort": {"_id": -1}},
            {"$limit": 1},
            {"$project": {"last": 1, "lastSeal": 1, "pending": 1}},
        ]
        filters = (in_time_range(series_key(owner, *one), to_ms=before_ms) for one in series)
        parts: list[Pipeline] = [[{"$match": one}, *last] for one in filters]
        return await find_each(self._places.collection(BLOCKS), parts, session)

    async def _blocks(self, owner: str, series: Sequence[Names], session: Any) -> dict[Names, _Candidate]:
        found = await self._last_heads(owner, series, session)
        candidates = _candidates(one for one in found if not one.get("pending"))
        for document in found:
            if document.get("pending"):
                window = Window(series_of(document["_id"]), descending=True)
                last = await self._places.ask(partial(_last_block, window=window), session)
                if last is not None:
                    candidates |= _candidates([{"_id": last.key, "last": last.newest, "lastSeal": last.last_seal}])
        return candidates


def _last_block(first: FirstReadings, session: Any, window: Window) -> LiveBlock | None:
    return unless_moved(lambda: next(first.blocks.walk(window, session), None))


def _candidates(found: Iterable[Document]) -> dict[Names, _Candidate]:
    try:
        return {names(one["_id"]): _candidate(one) for one in found}
    except (LookupError, TypeError, ValueError) as error:
        raise BlockError(f"neither a piece nor the head of a block: {error!r}") from error


def _candidate(found: Document) -> _Candidate:
    """Return the reading that a piece or the head of a block has as its last one."""
    last = dict(found["last"])
    position = date_ms(last.pop("ts")), int(last.pop("seq"))
    key = found["_id"]
    document = {"_id": reading_key(key["owner"], key["device"], key["sensorType"], *position), **last}
    return _Candidate(position, int(found["lastSeal"]), document)


def _keep_newest(kept: dict[Names, _Candidate], found: dict[Names, _Candidate]) -> None:
    for one, candidate in found.items():
        if (other := kept.get(one)) is None or candidate.rank > other.rank:
            kept[one] = candidate
