"""Jittered backoff, so that a fleet does not reconnect all at once."""

import random

# Wait between attempts to connect: the minimum, and the maximum after many attempts.
MIN_S = 0.2
MAX_S = 3.0


def jitter(min_s: float, max_s: float) -> float:
    """Return a random time between the two."""
    return random.uniform(min_s, max_s)


def backoff(attempt: int, requested_s: float = 0.0) -> float:
    """Return the seconds to wait after attempt number `attempt`, at least `requested_s` of the server."""
    return max(jitter(MIN_S, min(MAX_S, MIN_S * 2 ** min(attempt, 8))), jitter(requested_s, requested_s * 1.25))
