"""Points at which a process kills itself: for the fault tests, and off unless TIDEGATE_FAILPOINT names one.

`TIDEGATE_FAILPOINT=persister.inserted:20` is `kill -9` when that point is passed for the twentieth time. All there are:

- `gateway.before_publish`: a message is gathered, the broker has seen nothing of it
- `gateway.mid_publish`: the message is handed to the connection, its confirm is not there yet
- `gateway.confirmed`: the message is safe, no device has been told
- `persister.before_insert`: a batch is taken, nothing of it is stored
- `persister.inserted`: the batch is stored, nothing is acknowledged
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
]
VARIABLE = "TIDEGATE_FAILPOINT"

_armed, _, _times = os.environ.get(VARIABLE, "").partition(":")
if _armed and (_armed not in get_args(Point) or not _times.isdecimal()):
    raise SystemExit(f"{VARIABLE} must be POINT:TIMES, with one of: {', '.join(get_args(Point))}")
_left = int(_times or 0)


def failpoint(point: Point) -> None:
    """End the process here, if this is the point that was asked for, and the time."""
    global _left  # noqa: PLW0603 - the process ends with it
    if point == _armed:
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
