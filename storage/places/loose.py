"""Readings that are still documents: in `readings` and in sealed collections, read one after the other."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from readings.collections import READINGS
from readings.document import DocumentError
from runtime.times import now_ms
from storage.places.commands import ask
from storage.places.found import Found
from storage.places.moving import unless_moved
from storage.places.names import BEGINNING, BLOCKS, UNSEALED, sealed_name
from storage.places.raw import Raw, read_raw
from storage.places.raw_find import OtherCollection
from storage.places.sealed_bounds import SealedBounds
from storage.places.state import State, state_in
from storage.places.window import Window

# Sealed collections asked for readings before one command asks whether any of the others has some. Fewer once as many
# readings were found as were wanted: the newest ones are in `readings`, the earliest in what was sealed first.
FEW_SEALED = 2
# How long a state is used: limits of retention may change, and collections may be dropped, at any time.
STATE_S = 1.0


class Loose(NamedTuple):
    """What was found, the documents of `readings` alone, and the state as it was after those."""

    found: Found
    hot: Raw
    state: State


class _Recent(NamedTuple):
    """The state as it was when last read, until when it is used, and its operation time in MongoDB."""

    state: State
    until: float
    seen: Any = None


class LooseReadings:
    """Reads them in one database of the synchronous driver; its errors, and DocumentError."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._bounds = SealedBounds()
        self._recent = _Recent(State(), 0.0)

    def read(self, window: Window, limit: int, session: Any) -> Loose:
        """Return the first readings of a window."""
        window, hot, state = self._hot(window, limit, session)
        found = Found(window, limit)
        found.add_documents(hot, UNSEALED)
        # What is sealed last is mostly the newest.
        numbers = state.waiting[::-1] if window.descending else state.waiting
        asked, empty = 0, None
        for at, number in enumerate(numbers):
            is_found = found.is_full and (asked > 0 or window.descending)
            if empty is None and (is_found or asked >= FEW_SEALED):
                empty = self._empty(numbers[at:], found.rest, state, session)
            if number not in (empty or ()) and self._bounds.may_have(number, found.rest):
                self._add_sealed(found, number, limit, state, session)
                asked += 1
        return Loose(found, hot, state)

    def _empty(self, numbers: Sequence[int], window: Window, state: State, session: Any) -> set[int]:
        """Return sealed collections that are empty in a window: all those of which nothing is known, or none.

        Mostly all are, because the first ones have the whole page; else each would take a query of its own to say so.
        """
        bounds = self._bounds
        unknown = [
            number
            for number in numbers
            if number < state.final and bounds.may_have(number, window) and not bounds.is_known(number, window)
        ]
        if len(unknown) < 2 or unless_moved(lambda: have_any(self._database, unknown, window, session)):
            return set()
        for number in unknown:
            bounds.note(state, number, window, None)
        return set(unknown)

    def _hot(self, window: Window, limit: int, session: Any) -> tuple[Window, Raw, State]:
        """Return a window without what is past its retention, the first unsealed documents in it, and the state.

        The state is one in which whatever was sealed before they were read is named: the one that is read after them,
        or a recent one, as long as `readings` is still the collection that this one names. A later seal renames that.
        """
        state, until, seen = self._recent
        if state.hot is not None and time.monotonic() < until:
            if seen is not None:
                session.advance_operation_time(seen)
            retained = _since(window, state.oldest_ms(window.series["sensorType"], now_ms()))
            with suppress(OtherCollection):
                return retained, self._raw(READINGS, retained, limit, session, state.hot), state
        return self._hot_and_state(window, limit, session)

    def _hot_and_state(self, window: Window, limit: int, session: Any) -> tuple[Window, Raw, State]:
        """Return the same by reading one after the other.

        The limit of retention is that of the state: hot is read again if it was another one before.
        """
        sensor_type = window.series["sensorType"]
        state = self._recent.state if self._recent.until else self._read_state(session)
        while True:
            days = state.days(sensor_type)
            retained = _since(window, state.oldest_ms(sensor_type, now_ms()))
            hot = self._raw(READINGS, retained, limit, session)
            state = self._read_state(session)
            if state.days(sensor_type) == days:
                return retained, hot, state

    def _read_state(self, session: Any) -> State:
        until = time.monotonic() + STATE_S
        state = state_in(self._database[BLOCKS], session)
        self._recent = _Recent(state, until, None if session is None else session.operation_time)
        return state

    def _add_sealed(self, found: Found, number: int, limit: int, state: State, session: Any) -> None:
        window = found.rest
        raw = self._raw(sealed_name(number), window, limit, session)
        with suppress(DocumentError):
            self._bounds.note(state, number, window, raw.first_position())
        found.add_documents(raw, number)

    def _raw(self, name: str, window: Window, limit: int, session: Any, uuid: Any = None) -> Raw:
        return unless_moved(lambda: read_raw(self._database[name], window, limit, session, uuid))


def _since(window: Window, oldest_ms: int | None) -> Window:
    """Return a window without what is before a time; None for no limit."""
    return window if oldest_ms is None else replace(window, start=max(window.start, (oldest_ms, BEGINNING[1])))


def have_any(database: Any, numbers: list[int], window: Window, session: Any) -> bool:
    """Return whether any of some sealed collections has a reading of a window.

    They gain nothing, and nothing moves from one to another: they may be read by one command.
    """
    names, one = [sealed_name(number) for number in numbers], [{"$match": window.filter()}, {"$limit": 1}]
    pipeline = [*one, *({"$unionWith": {"coll": name, "pipeline": one}} for name in names[1:]), {"$limit": 1}]
    pipeline.append({"$project": {"_id": 1}})
    command = {"aggregate": names[0], "pipeline": pipeline, "cursor": {}}
    collection = database[names[0]]
    return bool(ask(collection, command, session, collection.codec_options)["cursor"]["firstBatch"])
