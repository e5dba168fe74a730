"""A cache bounded by weight that evicts the least recently used entries."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

# Added to the weight of each value, so that many empty values are bounded too.
ENTRY_WEIGHT = 10


class LRUCache(Generic[Key, Value]):
    """Holds values of a total weight of at most `max_weight`; the newest stays, however heavy it is."""

    def __init__(self, max_weight: int) -> None:
        self._max_weight = max_weight
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """Return the value of a key, or None."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, weight: int) -> None:
        """Store a value, replacing any other of its key, and evict the oldest beyond `max_weight`."""
        self._remove(key)
        self._entries[key] = value, weight + ENTRY_WEIGHT
        self.weight += weight + ENTRY_WEIGHT
        while self.weight > self._max_weight and len(self._entries) > 1:
            self._remove(next(iter(self._entries)))

    @property
    def value_weight(self) -> int:
        """The weight of the values alone, without `ENTRY_WEIGHT`."""
        return self.weight - ENTRY_WEIGHT * len(self._entries)

    def _remove(self, key: Key) -> None:
        removed = self._entries.pop(key, None)
        if removed is not None:
            self.weight -= removed[1]
