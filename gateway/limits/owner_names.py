"""A limit on the different names that each owner uses on this gateway, in bounded memory."""

from collections import OrderedDict
from collections.abc import Callable

# Bound on remembered names, some 100 bytes each; beyond it, owners without a connection are forgotten.
MAX_REMEMBERED = 1_000_000


class OwnerNames:
    """Remembers names by owner. Owners without a connection may be forgotten, the one unused for longest first."""

    def __init__(self, max_per_owner: int, connected: Callable[[str], bool]) -> None:
        self._max_per_owner = max_per_owner
        self._connected = connected
        # The owner used last comes last.
        self._names: OrderedDict[str, set[str]] = OrderedDict()
        self._count = 0

    def claim(self, owner: str, name: str) -> bool:
        """Return whether the owner may use the name: it is remembered, or there is room for it."""
        names = self._names.setdefault(owner, set())
        self._names.move_to_end(owner)
        if name in names:
            return True
        if len(names) >= self._max_per_owner:
            return False
        names.add(name)
        self._count += 1
        if self._count > MAX_REMEMBERED:
            self._evict_disconnected(owner)
        return True

    def _evict_disconnected(self, but: str) -> None:
        for owner in list(self._names):
            if self._count <= MAX_REMEMBERED:
                return
            if owner != but and not self._connected(owner):
                self._count -= len(self._names.pop(owner))
