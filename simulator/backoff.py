"""Waits that differ from device to device, so that a fleet does not come back all at once."""

import random

# Between tries to connect: the least, and the most after many tries.
LEAST_S = 0.2
MOST_S = 3.0


def jitter(least_s: float, most_s: float) -> float:
    """Return some time between the two."""
    return random.uniform(least_s, most_s)


def backoff(attempt: int, asked_s: float = 0.0) -> float:
    """Return how long to wait before try `attempt` + 1, at least what the server asked for."""
    return max(jitter(LEAST_S, min(MOST_S, LEAST_S * 2 ** min(attempt, 8))), jitter(asked_s, asked_s * 1.25))
