"""A sealed collection is not asked for what it cannot have, and always for what it may have."""

import random
from types import SimpleNamespace

import pytest

from readings.keys import Position
from storage.places import sealed_bounds
from storage.places.names import BEGINNING, END
from storage.places.sealed_bounds import SealedBounds
from storage.places.state import State
from storage.places.window import Window
from tests.storage.places.layout import SERIES

STATE = State(waiting=(3, 4), highest=4, final=5)


def window(start: Position = BEGINNING, end: Position = END, *, descending: bool = False) -> Window:
    return Window(SERIES, start, end, descending)


def test_nothing_is_known_at_first() -> None:
    assert SealedBounds().may_have(3, window())


def test_the_last_reading_is_a_bound() -> None:
    bounds = SealedBounds()
    bounds.note(STATE, 3, window(descending=True), (100, 7))
    assert bounds.may_have(3, window((100, 7)))
    assert not bounds.may_have(3, window((100, 8)))
    assert bounds.may_have(3, window(end=(5, 0)))
    assert bounds.may_have(4, window((100, 8)))
    assert bounds.may_have(3, Window(SERIES | {"device": "another"}, (100, 8)))


def test_the_first_reading_is_a_bound() -> None:
    bounds = SealedBounds()
    bounds.note(STATE, 3, window(), (100, 7))
    assert not bounds.may_have(3, window(end=(100, 7)))
    assert bounds.may_have(3, window(end=(100, 8)))


def test_a_collection_without_a_reading_of_the_series_is_not_asked_again() -> None:
    bounds = SealedBounds()
    bounds.note(STATE, 3, window(), None)
    assert not bounds.may_have(3, window())
    assert bounds.may_have(4, window())


def test_nothing_before_a_time_is_a_bound() -> None:
    bounds = SealedBounds()
    bounds.note(STATE, 3, window(end=(50, 0), descending=True), None)
    assert not bounds.may_have(3, window(end=(50, 0)))
    assert not bounds.may_have(3, window((10, 0), (20, 0)))
    assert bounds.may_have(3, window(end=(50, 1)))
    assert bounds.may_have(3, window((10, 0)))


def test_a_bound_is_known_in_the_direction_of_a_window() -> None:
    bounds = SealedBounds()
    up, down = window((50, 0)), window(end=(200, 0), descending=True)
    assert not bounds.is_known(3, up)
    bounds.note(STATE, 3, window(), (100, 7))
    assert (bounds.is_known(3, up), bounds.is_known(3, down)) == (True, False)
    bounds.note(STATE, 3, window(descending=True), (150, 1))
    assert bounds.is_known(3, down)
    assert not bounds.is_known(4, down)


def test_a_part_says_nothing_about_the_rest() -> None:
    bounds = SealedBounds()
    bounds.note(STATE, 3, window((10, 0), (20, 0), descending=True), (15, 0))
    bounds.note(STATE, 3, window((10, 0), (20, 0)), None)
    bounds.note(STATE, 3, window((10, 0)), (15, 0))
    bounds.note(STATE, 3, window(end=(20, 0), descending=True), (15, 0))
    assert bounds.may_have(3, window(end=(15, 0)))
    assert bounds.may_have(3, window((16, 0)))
    bounds.note(STATE, 3, window((10, 0)), None)
    assert bounds.may_have(3, window((9, 0)))
    assert not bounds.may_have(3, window((10, 0)))


def test_a_collection_that_may_not_be_renamed_yet_is_always_asked() -> None:
    bounds = SealedBounds()
    bounds.note(State(waiting=(3, 4), highest=4, final=4), 4, window(), None)
    assert bounds.may_have(4, window())


def test_what_is_known_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = SealedBounds()
    bounds.note(STATE, 3, window(), None)
    monkeypatch.setattr(sealed_bounds, "KNOWN_S", 0.0)
    assert bounds.may_have(3, window())


def test_series_that_are_not_asked_about_any_more_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(sealed_bounds, "time", SimpleNamespace(monotonic=lambda: now))
    bounds = SealedBounds()
    for number in range(1000):
        now = float(number)
        bounds.note(STATE, 3, Window(SERIES | {"device": f"device-{number}"}), (100, 7))
    assert len(bounds) <= sealed_bounds.KNOWN_S
    assert bounds.is_known(3, Window(SERIES | {"device": "device-999"}))


def test_what_becomes_old_while_it_is_noted_is_noted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = SealedBounds()
    bounds.note(STATE, 3, window(), None)
    # Each look at the clock is later than the one before.
    times = iter(range(1000))
    monkeypatch.setattr(sealed_bounds, "time", SimpleNamespace(monotonic=lambda: float(next(times))))
    monkeypatch.setattr(sealed_bounds, "KNOWN_S", 1.0)
    for _ in range(10):
        bounds.note(STATE, 3, window(), None)
    assert len(bounds) == 1


@pytest.mark.fuzz
def test_random_questions_never_lose_a_reading(rng: random.Random) -> None:
    for _ in range(300):
        readings = sorted({(rng.randint(0, 9), rng.randint(0, 2)) for _ in range(rng.randint(0, 6))})
        bounds = SealedBounds()
        for _ in range(8):
            start, end = sorted((rng.randint(0, 10), rng.randint(0, 2)) for _ in range(2))
            asked = window(rng.choice([start, BEGINNING]), rng.choice([end, END]), descending=rng.random() < 0.5)
            found = [one for one in readings if asked.start <= one < asked.end]
            if found:
                assert bounds.may_have(3, asked), (readings, asked)
            if bounds.may_have(3, asked):
                bounds.note(STATE, 3, asked, (found[-1] if asked.descending else found[0]) if found else None)
