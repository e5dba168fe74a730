"""Query plans, as returned by MongoDB's `explain`."""

from collections.abc import Iterator
from typing import Any

Plan = dict[str, Any]


def stages(plan: Any) -> Iterator[Plan]:
    """Yield every part of a plan that names its stage."""
    if isinstance(plan, dict):
        if "stage" in plan:
            yield plan
        for part in plan.values():
            yield from stages(part)
    elif isinstance(plan, list):
        for part in plan:
            yield from stages(part)
