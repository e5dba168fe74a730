"""What was found of series is remembered for a while, and of a number of them at most."""

from collections import OrderedDict
from typing import Any, Protocol, TypeVar


class Remembered(Protocol):
    """What was found of a series some time ago."""

    @property
    def is_old(self) -> bool:
        """Whether it has to be looked up again."""


One = TypeVar("One", bound=Remembered)


def make_room(known: OrderedDict[Any, One], at_most: int) -> None:
    """Forget those in front, which were remembered first, until there is room for one more and the first is not old."""
    while known and (len(known) >= at_most or next(iter(known.values())).is_old):
        known.popitem(last=False)
