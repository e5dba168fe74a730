"""The memory of known series."""

import itertools

from persister.known_series import KnownSeries
from readings.document import encode_document, series_bytes
from readings.reading import Reading
from tests.persister.harness import document


def name_of(owner: str, device: str) -> bytes:
    return series_bytes(encode_document(owner, device, Reading("temperature", 1, 1_700_000_000_000, 0, 1)))


def test_the_memory_of_series_is_bounded_and_forgets_the_oldest() -> None:
    known = KnownSeries(2)
    a, b, c = (series_bytes(document(1, kind)) for kind in "abc")
    for name in (a, b):
        known.add(name)
    assert known.touch(a)
    known.add(c)
    assert known.touch(a)
    assert not known.touch(b)


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
