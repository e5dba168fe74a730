"""The memory of known series."""

import itertools
import time

import pytest

from persister.known_series import TURN_EVERY_S, KnownSeries
from readings.document import encode_document, series_bytes
from readings.reading import Reading


def name_of(owner: str, device: str) -> bytes:
    return series_bytes(encode_document(owner, device, Reading("temperature", 1, 1_700_000_000_000, 0, 1)))


def names(count: int) -> list[bytes]:
    return [name_of("owner", f"device-{number}") for number in range(count)]


def test_the_memory_of_series_is_bounded_and_forgets_those_that_are_unused() -> None:
    known = KnownSeries(100)
    used, once, later = names(250)[:40], names(250)[40:100], names(250)[100:]
    for name in used + once:
        known.add(name)
    for name in later[:50]:  # of the older ones, some have gone for them
        known.add(name)
        assert all(map(known.touch, later[:1]))
    assert len(known) == 100
    for name in used:
        known.add(name)
    for name in later[50:60]:
        known.add(name)
    assert all(map(known.touch, used))
    for name in used + once + later:
        known.add(name)
        assert known.touch(name)
        assert len(known) == 100


def test_adding_what_is_known_takes_no_room() -> None:
    known = KnownSeries(2)
    first, second = names(2)
    for _ in range(3):
        for name in (first, second):
            known.add(name)
    assert known.touch(first)
    assert known.touch(second)


def test_what_is_unused_for_an_hour_is_forgotten_and_what_is_used_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    known = KnownSeries(100)
    used, gone = names(2)
    known.add(used)
    known.add(gone)
    for number in range(1, 4):  # at each turn a new series comes
        now += TURN_EVERY_S
        known.add(name_of("owner", f"new-{number}"))
        assert known.touch(used)
    assert not known.touch(gone)
    assert len(known) == 3  # and the two newest of the others


def test_what_is_unused_is_forgotten_where_no_series_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    known = KnownSeries(100)
    used, gone = names(2)
    for name in (used, gone):
        known.add(name)
    for _ in range(9):
        now += TURN_EVERY_S / 4
        assert known.touch(used)
        known.record_stored([used])
    assert len(known) == 1
    assert not known.touch(gone)


def test_a_series_that_is_added_again_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    known = KnownSeries(1)
    name = name_of("owner", "a")
    known.add(name)
    now += TURN_EVERY_S
    known.add(name)
    assert len(known) == 1
    assert known.forget("owner") == 1


def test_forgetting_an_owner_forgets_all_its_series_and_no_other() -> None:
    known = KnownSeries(100)
    for owner, device in itertools.product(("owne", "owner", "owner2"), "ab"):
        name = name_of(owner, device)
        assert not known.touch(name)
        known.add(name)
    assert known.forget("owner") == 2
    assert not known.touch(name_of("owner", "a"))
    assert known.touch(name_of("owne", "a"))
    assert known.touch(name_of("owner2", "b"))


def test_forgetting_everything_returns_what_was_known_and_stored_before_and_after_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    known = KnownSeries(100)
    older, recent, unknown = names(3)
    known.add(older)
    now += TURN_EVERY_S
    known.add(recent)
    known.record_stored([older, unknown])
    assert sorted(known.forget_all({recent})) == sorted([older, recent])
    assert (known.epoch, len(known)) == (1, 0)
