"""A memory with a bound: what was not asked for the longest goes first."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

# What an entry weighs beside what it holds, so that many empty ones are bounded, too.
ENTRY = 10


class Bounded(Generic[Key, Value]):
    """Keeps values of a weight each, together at most `most`; the last one is kept however much it weighs."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.weight = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Value | None:
        """Return what is kept, None where nothing is."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def keep(self, key: Key, value: Value, weight: int) -> None:
        """Keep a value, in place of another one of its key."""
        self._drop(key)
        self._kept[key] = value, weight + ENTRY
        self.weight += weight + ENTRY
        while self.weight > self._most and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    @property
    def held(self) -> int:
        """What the kept values weigh themselves."""
        return self.weight - ENTRY * len(self._kept)

    def _drop(self, key: Key) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self.weight -= dropped[1]
