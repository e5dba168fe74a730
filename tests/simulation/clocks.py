"""Replaces what would make a run depend on the machine: its clocks, and its sources of randomness."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson import ObjectId

from tests.simulation.loop import SimulatedLoop

# 2026-09-21T14:13:20Z, so that no time of a history is before 2000 or ahead of what the gateway takes.
EPOCH_S = 1_790_000_000
# How far the monotonic clock is at the start: nothing may rely on its beginning at 0.
BOOTED_S = 1000.0


@contextmanager
def simulated_clocks(loop: SimulatedLoop, seed: int) -> Iterator[None]:
    """Let every clock of the `time` module show the loop's time, and draw all randomness from the seed."""
    entropy = random.Random(f"{seed} entropy")
    replaced: list[tuple[Any, str, Any]] = [
        (time, "time", lambda: EPOCH_S + loop.time()),
        (time, "time_ns", lambda: EPOCH_S * 1_000_000_000 + int(loop.time() * 1e9)),
        (time, "monotonic", lambda: BOOTED_S + loop.time()),
        (time, "perf_counter", lambda: BOOTED_S + loop.time()),
        (os, "urandom", entropy.randbytes),
        (random, "_urandom", entropy.randbytes),
        (ObjectId, "_inc", 0),
        (ObjectId, "_pid", os.getpid()),
        (ObjectId, "_ObjectId__random", bytes(5)),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    state = random.getstate()
    random.seed(seed)
    try:
        for owner, name, value in replaced:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        random.setstate(state)
