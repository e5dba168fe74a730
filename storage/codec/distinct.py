"""The distinct values of an array."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item", bound=np.generic)


def distinct(values: NDArray[Item]) -> NDArray[Item]:
    """Return each value once, in order.

    `np.unique` without options would load `numpy.ma` in its first call (numpy 2.4.6): 22 ms in the midst of the first
    question to a reader, and 1.7 MB.
    """
    found: tuple[NDArray[Item], NDArray[Any]] = np.unique(values, return_counts=True)
    return found[0]
