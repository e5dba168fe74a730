"""The one document that says which sealed collections there are, and who seals and compacts.

It is among the blocks, `{_id: "state"}`, so that a copy of the blocks never comes without the seal numbers that are in
use: `highest: int64, blocks: bool, waiting: [{number: int64, sealedAt: Date, renamed: bool, failures: int, aside:
bool}], retention: {days: int, bySensorType: {…}}, retentionConfirmedAt: Date`, and what the lease holders keep there
(`sealing`, `compaction`).

A seal number is in `waiting` before the collection is renamed, and until after that collection is dropped. `blocks` is
true before the first piece or block is written, and there may be some as long as anything waits. A reader that reads
`readings` first and then this document therefore knows of each place into which a reading may have moved meanwhile, or
moves while the places that it names are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.places.commands import find_document

STATE = "state"
DAY_MS = 86_400_000
_FIELDS = ("highest", "waiting.number", "waiting.renamed", "blocks", "retention", "sealing.hotUuid")
_PROJECTION = dict.fromkeys(_FIELDS, 1)


@dataclass(frozen=True, slots=True)
class State:
    """What readers need of the document.

    `waiting`: the numbers of sealed collections, lowest first. `highest`: the highest ever. `final`: what is sealed
    under a number below it gains nothing any more; of higher numbers the collection may not have been renamed yet.
    `has_blocks`: whether there are pieces and blocks, or may be as soon as what waits has been read. `hot`: the UUID of
    a collection that was `readings`, None if not known; whatever was sealed before that came to be is in this state.
    """

    waiting: tuple[int, ...] = ()
    highest: int = 0
    final: int = 1
    has_blocks: bool = False
    retention_days: int = 0
    retention_by_sensor_type: Mapping[str, int] = field(default_factory=dict)
    hot: Any = None

    @property
    def removes_anything(self) -> bool:
        """Whether readings of any type are past their retention some time."""
        return self.retention_days > 0 or any(self.retention_by_sensor_type.values())

    def days(self, sensor_type: str) -> int:
        """Return how many days readings of a type are kept; 0 for no limit."""
        return self.retention_by_sensor_type.get(sensor_type, self.retention_days)

    def oldest_ms(self, sensor_type: str, now_ms: int) -> int | None:
        """Return the time before which readings are past their retention; None if they are kept without limit."""
        days = self.days(sensor_type)
        return now_ms - days * DAY_MS if days else None


def state_of(document: Mapping[str, Any] | None) -> State:
    """Return the state of a stored document; None for a database in which nothing was ever sealed."""
    if document is None:
        return State()
    retention, waiting = document.get("retention") or {}, document.get("waiting", ())
    unnamed = [int(one["number"]) for one in waiting if not one.get("renamed")]
    highest = int(document.get("highest", 0))
    return State(
        tuple(sorted(int(one["number"]) for one in waiting)),
        highest,
        min([*unnamed, highest + 1]),
        bool(document.get("blocks") or waiting),
        int(retention.get("days", 0)),
        dict(retention.get("bySensorType", {})),
        (document.get("sealing") or {}).get("hotUuid"),
    )


def state_in(blocks: Any, session: Any) -> State:
    """Read the state from the collection of the blocks of the synchronous driver; its errors."""
    return state_of(find_document(blocks, {"_id": STATE}, _PROJECTION, session=session))


async def read_state(blocks: Any, session: Any = None) -> State:
    """Read the state from the collection of the blocks; the driver's errors."""
    return state_of(await blocks.find_one({"_id": STATE}, _PROJECTION, session=session))
