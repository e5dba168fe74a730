"""Points at which a process kills itself, for the fault tests; off unless TIDEGATE_FAILPOINT names one.

`TIDEGATE_FAILPOINT=persister.inserted:20` is a `kill -9` the twentieth time that the process passes that point:

- `gateway.before_publish`: a message is assembled, the broker has not seen it
- `gateway.mid_publish`: the message is written to the connection, its confirm has not arrived
- `gateway.confirmed`: the broker has the message, no device has its acknowledgement
- `persister.before_insert`: a batch is assembled, none of it is stored
- `persister.inserted`: the batch is stored, no message is acknowledged
- `compactor.begun`: a sealed collection is opened, nothing of it is written
- `compactor.before_columns`, `.columns_inserted`, `.heads_inserted`, `.head_replaced`, `.pending_cleared`: the steps in
  which blocks are written (persister/compaction/blocks.py)
- `compactor.before_pieces`, `.pieces_inserted`: pieces, whose predecessors are deleted afterwards
- `compactor.before_save`, `.saved`: the position
- `compactor.before_drop`, `.dropped`: the sealed collection, whose number is still in the list
- `persister.before_rename`: a seal number is taken, the collection is not renamed
- `persister.renamed`: the collection is renamed, the next one is not created
- `persister.before_announce`, `.announced`: a batch is stored, and what rules watch of it is not, or is, announced
- `alarms.before_commit`, `.committed`: changes of alarms are found, and not, or already, stored
- `alarms.before_send`, `.sent`: a notification is leased, and not sent, or sent and not noted
"""

import os
import signal
from typing import Literal, get_args

Point = Literal[
    "gateway.before_publish",
    "gateway.mid_publish",
    "gateway.confirmed",
    "persister.before_insert",
    "persister.inserted",
    "compactor.begun",
    "compactor.before_columns",
    "compactor.columns_inserted",
    "compactor.heads_inserted",
    "compactor.head_replaced",
    "compactor.pending_cleared",
    "compactor.before_pieces",
    "compactor.pieces_inserted",
    "compactor.before_save",
    "compactor.saved",
    "compactor.before_drop",
    "compactor.dropped",
    "persister.before_rename",
    "persister.renamed",
    "persister.before_announce",
    "persister.announced",
    "alarms.before_commit",
    "alarms.committed",
    "alarms.before_send",
    "alarms.sent",
]
VARIABLE = "TIDEGATE_FAILPOINT"

_armed, _, _times = os.environ.get(VARIABLE, "").partition(":")
if _armed and (_armed not in get_args(Point) or not _times.isdecimal()):
    raise SystemExit(f"{VARIABLE} must be POINT:TIMES, with one of: {', '.join(get_args(Point))}")
_left = int(_times or 0)


def failpoint(point: Point) -> None:
    """Kill the process if this point is armed and has now been passed the configured number of times."""
    global _left  # noqa: PLW0603 - the process ends with it
    if point == _armed:
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
