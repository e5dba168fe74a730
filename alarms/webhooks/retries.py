"""When a notification that failed is sent again: sooner at first, for 24 hours."""

import random

FIRST_RETRY_S = 5.0
GROWTH = 3
# A receiver that was away for hours is told within half an hour.
LONGEST_PAUSE_S = 1800.0
# So that notifications that failed together do not come back together.
JITTER = 0.2


def pause_s(attempts: int, random: random.Random) -> float:
    """Return the seconds until the next attempt, after so many that failed; at least 1 was made."""
    pause: float = min(FIRST_RETRY_S * GROWTH ** min(attempts - 1, 20), LONGEST_PAUSE_S)
    return pause * random.uniform(1 - JITTER, 1 + JITTER)
