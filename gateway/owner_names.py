"""The names that each owner has used on this gateway: at most so many different ones, in memory and bounded."""

from collections import OrderedDict
from collections.abc import Callable

# Names remembered of owners who are not connected, some 100 bytes each.
MAX_REMEMBERED = 1_000_000


class OwnerNames:
    """Remembers names by owner. An owner without a connection may be forgotten, the one who came longest ago first."""

    def __init__(self, most_per_owner: int, connected: Callable[[str], bool]) -> None:
        self._most_per_owner = most_per_owner
        self._connected = connected
        # Those who came last at the end.
        self._names: OrderedDict[str, set[str]] = OrderedDict()
        self._count = 0

    def take(self, owner: str, name: str) -> bool:
        """Return whether the owner may use the name: it is remembered, or there is room for it."""
        names = self._names.setdefault(owner, set())
        self._names.move_to_end(owner)
        if name in names:
            return True
        if len(names) >= self._most_per_owner:
            return False
        names.add(name)
        self._count += 1
        if self._count > MAX_REMEMBERED:
            self._forget_some(owner)
        return True

    def _forget_some(self, but: str) -> None:
        for owner in list(self._names):
            if self._count <= MAX_REMEMBERED:
                return
            if owner != but and not self._connected(owner):
                self._count -= len(self._names.pop(owner))
