"""Identities of readings as `stored` events and `POST /readings/stored` name them: sensorType, ts in ms and seq."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

Identity = tuple[str, int, int]
# Takes the body of `POST /readings/stored`, and returns its answer's, or None where the server has no such call; raises
# NotNow.
Ask = Callable[[dict[str, Any]], Awaitable[Any]]

# Readings in one question.
MAX_ASKED = 1000


def question(some: Iterable[Identity]) -> dict[str, Any]:
    """Return the body of `POST /readings/stored` that asks for these, at most MAX_ASKED."""
    series: dict[str, list[tuple[int, int]]] = {}
    for name, ts, seq in some:
        series.setdefault(name, []).append((ts, seq))
    return {"items": [{"sensorType": name, "readings": readings} for name, readings in series.items()]}


def identities(event: Any) -> list[Identity]:
    """Return what an event lists; parts that have another form are skipped."""
    items = event.get("items") if isinstance(event, dict) else None
    found: list[Identity] = []
    for item in items if isinstance(items, list) else ():
        readings = item.get("readings") if isinstance(item, dict) else None
        pairs = [one for one in readings if _is_pair(one)] if isinstance(readings, list) else []
        found += [(str(item.get("sensorType")), ts, seq) for ts, seq in pairs]
    return found


def _is_pair(one: Any) -> bool:
    return isinstance(one, list) and len(one) == 2 and all(type(number) is int for number in one)
