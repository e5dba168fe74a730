"""Readings that are still documents: in `readings` and in sealed collections, read one after the other."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from bson import Int64

from readings.collections import READINGS
from readings.document import DocumentError, position_of
from readings.keys import Position
from runtime.times import now_ms
from storage.places.found import Found
from storage.places.moving import unless_moved
from storage.places.names import BEGINNING, BLOCKS, UNSEALED, sealed_name
from storage.places.raw import Raw, read_raw
from storage.places.sealed_bounds import SealedBounds
from storage.places.state import State, state_in
from storage.places.window import Window

# Asked one after the other, without asking before for where the readings of each begin.
FEW_SEALED = 2


class Loose(NamedTuple):
    """What was found, the documents of `readings` alone, and the state as it was after those."""

    found: Found
    hot: Raw
    state: State


class LooseReadings:
    """Reads them in one database of the synchronous driver; its errors, and DocumentError."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._bounds = SealedBounds()
        # As it was when last read; only the limits of retention are taken from here.
        self._state: State | None = None

    def read(self, window: Window, limit: int, session: Any) -> Loose:
        """Return the first readings of a window."""
        window, hot, state = self._hot(window, limit, session)
        found = Found(window, limit)
        found.add_documents(hot, UNSEALED)
        for number in self._which_may_have(found.rest, state, session):
            if self._bounds.may_have(number, found.rest):
                self._add_sealed(found, number, limit, state, session)
        return Loose(found, hot, state)

    def _which_may_have(self, window: Window, state: State, session: Any) -> list[int]:
        """Return the sealed collections that may have readings of a window, those with the first ones first.

        Of many of which nothing is known, one command asks for the first reading of each.
        """
        bounds = self._bounds
        # What is sealed last is mostly the newest.
        waiting = reversed(state.waiting) if window.descending else state.waiting
        numbers = [number for number in waiting if bounds.may_have(number, window)]
        unknown = [number for number in numbers if number < state.final and not bounds.is_known(number, window)]
        nearest = {number: bounds.nearest(number, window) for number in numbers}
        if len(unknown) > FEW_SEALED:
            found = unless_moved(lambda: first_positions(self._database, unknown, window, session))
            for number in unknown:
                bounds.note(state, number, window, found.get(number))
                if number in found:
                    nearest[number] = found[number]
                else:
                    del nearest[number]
        return sorted(nearest, key=lambda number: nearest[number], reverse=window.descending)

    def _hot(self, window: Window, limit: int, session: Any) -> tuple[Window, Raw, State]:
        """Return a window without what is past its retention, the first unsealed documents in it, and then the state.

        The limit is that of the state: hot is read again if it was another one before.
        """
        sensor_type = window.series["sensorType"]
        state = self._state or self._read_state(session)
        while True:
            days = state.days(sensor_type)
            retained = _since(window, state.oldest_ms(sensor_type, now_ms()))
            hot = self._raw(READINGS, retained, limit, session)
            state = self._read_state(session)
            if state.days(sensor_type) == days:
                return retained, hot, state

    def _read_state(self, session: Any) -> State:
        self._state = state_in(self._database[BLOCKS], session)
        return self._state

    def _add_sealed(self, found: Found, number: int, limit: int, state: State, session: Any) -> None:
        window = found.rest
        raw = self._raw(sealed_name(number), window, limit, session)
        with suppress(DocumentError):
            self._bounds.note(state, number, window, raw.first_position())
        found.add_documents(raw, number)

    def _raw(self, name: str, window: Window, limit: int, session: Any) -> Raw:
        return unless_moved(lambda: read_raw(self._database[name], window, limit, session))


def _since(window: Window, oldest_ms: int | None) -> Window:
    """Return a window without what is before a time; None for no limit."""
    return window if oldest_ms is None else replace(window, start=max(window.start, (oldest_ms, BEGINNING[1])))


def first_positions(database: Any, numbers: list[int], window: Window, session: Any) -> dict[int, Position]:
    """Return the position of the first reading of a window in each sealed collection that has one.

    Sealed collections gain nothing, and nothing moves from one to another: they may be read together.
    """
    first, *others = [
        (
            sealed_name(number),
            [
                {"$match": window.filter()},
                {"$sort": {"_id": -1 if window.descending else 1}},
                {"$limit": 1},
                {"$project": {"number": {"$literal": Int64(number)}}},
            ],
        )
        for number in numbers
    ]
    name, pipeline = first
    pipeline += [{"$unionWith": {"coll": name, "pipeline": other}} for name, other in others]
    # One more than possible, to avoid a second round trip.
    found = database[name].aggregate(pipeline, batchSize=len(numbers) + 1, session=session)
    return {int(document["number"]): position_of(document) for document in found}
