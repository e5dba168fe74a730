"""The limit on names per owner, in bounded memory."""

import pytest

from gateway.limits.owner_names import OwnerNames


def test_names_of_disconnected_owners_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limits.owner_names.MAX_REMEMBERED", 100)
    here = {"here"}
    names = OwnerNames(50, here.__contains__)
    assert all(names.claim("here", f"t-{number}") for number in range(50))
    for owner in range(1000):
        assert names.claim(f"gone-{owner}", "t")
    assert sum(map(len, names._names.values())) == 100
    assert not names.claim("here", "t-50")
    assert names.claim("here", "t-49")
