"""The options of a device, checked."""

import os
from typing import Any


def check_options(token: Any, buffer: Any, receipts: Any, keep_stored: Any, max_pending: Any, drop: Any) -> None:
    """Raise ValueError, which names the option, if one is invalid."""
    if not token or not (isinstance(token, str) or callable(token)):
        raise ValueError("token: neither a text nor an async function that returns one")
    if buffer is not None and (not isinstance(buffer, str | os.PathLike) or not os.fspath(buffer)):
        raise ValueError(f"buffer: {buffer!r} is neither the path of a file nor None")
    if receipts not in (True, False):
        raise ValueError(f"receipts: {receipts!r} is neither True nor False")
    if not _is_number(keep_stored) or not 0 <= keep_stored < float("inf"):
        raise ValueError(f"keep_stored: {keep_stored!r} is not a number of seconds")
    if not _is_number(max_pending) or max_pending < 1:
        raise ValueError(f"max_pending: {max_pending!r} is not a number of readings, 1 or more")
    if drop not in ("oldest", "newest"):
        raise ValueError(f'drop: {drop!r} is neither "oldest" nor "newest"')


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
