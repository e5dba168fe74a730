"""The options of a device, checked."""

from typing import Any


def check_options(token: Any, drop: Any, max_pending: float, keep_stored: float) -> None:
    """Raise ValueError, which names the option, if one is invalid."""
    if not token or not (isinstance(token, str) or callable(token)):
        raise ValueError("token: neither a text nor an async function that returns one")
    if drop not in ("oldest", "newest"):
        raise ValueError(f'drop: {drop!r} is neither "oldest" nor "newest"')
    if max_pending < 1:
        raise ValueError(f"max_pending: {max_pending} is less than 1")
    if not 0 <= keep_stored < float("inf"):
        raise ValueError(f"keep_stored: {keep_stored} is not a number of seconds")
