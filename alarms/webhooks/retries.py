"""When a notification that failed is sent again: sooner at first, for 24 hours."""

import random
from email.utils import parsedate_to_datetime

FIRST_RETRY_S = 5.0
GROWTH = 3
# A receiver that was away for hours is told within half an hour.
LONGEST_PAUSE_S = 1800.0
# Whatever a receiver asks for: notifications are given up after a day.
LONGEST_ASKED_S = 3600.0
MAX_DIGITS = 9
# So that notifications that failed together do not come back together.
JITTER = 0.2


def pause_s(attempts: int, random: random.Random, asked_s: float = 0.0) -> float:
    """Return the seconds until the next attempt, after so many that failed; at least 1 was made.

    `asked_s`: the receiver wants to be left alone for so long.
    """
    pause: float = min(FIRST_RETRY_S * GROWTH ** min(attempts - 1, 20), LONGEST_PAUSE_S)
    asked = min(asked_s, LONGEST_ASKED_S) * random.uniform(1, 1 + JITTER)
    return max(pause * random.uniform(1 - JITTER, 1 + JITTER), asked)


def asked_pause_s(retry_after: str | None, now_s: float) -> float:
    """Return the seconds that a Retry-After asks for, given as seconds or as a date (RFC 9110, 10.2.3); 0 for none."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:MAX_DIGITS])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return 0.0
