"""Times as the database keeps them (milliseconds since 1970) and as answers show them (RFC 3339)."""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def rfc3339(milliseconds: int) -> str:
    """Return for example `2026-01-31T12:00:00.000Z`."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
