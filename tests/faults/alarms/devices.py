"""Devices whose series rules watch: through either gateway, as the fleet's, and in bounds and out of them.

`Steady` sends a batch once the one before is announced to alarms, as its receipts say: so its readings are announced in
their order, however often. `Loose` does not wait, and some of its readings are seconds late. `Pulsing` pauses.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from tests.faults.alarms.rules import BOUND, FAULT, HYSTERESIS, LEVEL, MODE, PULSE, SILENT_S
from tests.faults.fleet import Sender

MAX_OF_A_KIND = 3
# A lost receipt is made up for by sending again.
RECEIPT_WITHIN_S = 3.0
LATE_S = (2.0, 6.0)


class Course:
    """Takes turns between ranges, for random times."""

    def __init__(self, rng: random.Random, *turns: tuple[tuple[float, float], Sequence[Any]]) -> None:
        self._random = rng
        self._turns = turns
        self._at = -1
        self._until = 0.0

    def now(self) -> Any:
        """Return one of the values whose turn it is."""
        if time.monotonic() >= self._until:
            self._at = (self._at + 1) % len(self._turns)
            self._until = time.monotonic() + self._random.uniform(*self._turns[self._at][0])
        return self._random.choice(self._turns[self._at][1])


class Watched(Sender):
    """A device whose readings may be anything but in order."""

    label = "loose"

    def __init__(self, number: int, urls: list[str], owner: str, device: str, token: str, seed: int) -> None:
        super().__init__(number, urls, owner, device, token, seed)
        near = range(BOUND - HYSTERESIS + 1, BOUND + 1)
        self._level = Course(
            self._random,
            ((4, 7), range(40, BOUND - HYSTERESIS)),
            ((1, 2), near),
            ((2, 4), range(BOUND + 1, 120)),
            ((1, 2), near),
        )
        self._mode = Course(self._random, ((4, 8), ["run"]), ((2, 4), [FAULT]))
        self._seq = {LEVEL: 0, MODE: 0, PULSE: 0}
        # Batches that were answered, and were sent again: when from, and until when, in ms since 1970.
        self.repeats: list[tuple[int, int]] = []
        self._began_ms = 0

    def _reading(self, sensor_type: str, value: Any) -> dict[str, Any]:
        self._seq[sensor_type] += 1
        ts = time.time_ns() // 1_000_000
        return {"sensorType": sensor_type, "ts": ts, "seq": self._seq[sensor_type], "value": value}

    def _batch(self, size: int) -> list[dict[str, Any]]:
        self._began_ms = time.time_ns() // 1_000_000
        made = self._next_readings()
        self.sent |= {self._identity(one): 0 for one in made}
        return made

    def _next_readings(self) -> list[dict[str, Any]]:
        count = self._random.randint(1, MAX_OF_A_KIND)
        made = [self._reading(LEVEL, self._level.now()) for _ in range(count)]
        made += [self._reading(MODE, self._mode.now()) for _ in range(self._random.randint(1, count))]
        if self._random.random() < 0.12:
            late = self._reading(LEVEL, self._random.randint(40, 120))
            made.append(late | {"ts": late["ts"] - round(1000 * self._random.uniform(*LATE_S))})
        self._random.shuffle(made)
        return made

    async def _is_done(self) -> bool:
        self.repeats.append((self._began_ms, time.time_ns() // 1_000_000))
        return True

    def _pause_s(self) -> float:
        return self._random.uniform(0.1, 0.4)


class Steady(Watched):
    """A device whose readings are announced in their order."""

    label = "steady"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._asks = {"receipts": True}
        self._receipts: set[tuple[str, int, int]] = set()
        self._has_receipt = asyncio.Event()

    def _next_readings(self) -> list[dict[str, Any]]:
        self._receipts.clear()
        if self._random.random() < 0.03:
            self._seq[LEVEL] += self._random.randint(1, 3)
        count = self._random.randint(1, MAX_OF_A_KIND)
        made = [self._reading(LEVEL, self._level.now()) for _ in range(count)]
        return [*made, self._reading(MODE, self._mode.now())]

    def _stored(self, event: Any) -> None:
        self._receipts |= {(one["sensorType"], ts, seq) for one in event["items"] for ts, seq in one["readings"]}
        self._has_receipt.set()

    async def _is_done(self) -> bool:
        """Return whether all of it has its receipt, which is sent behind the announcement."""
        expected = {(one["sensorType"], one["ts"], one["seq"]) for one in self._pending}
        try:
            async with asyncio.timeout(RECEIPT_WITHIN_S):
                while not expected <= self._receipts:
                    self._has_receipt.clear()
                    await self._has_receipt.wait()
        except TimeoutError:
            return False
        return True


class Pulsing(Watched):
    """A device that sends for some seconds, and then nothing for as many."""

    label = "pulsing"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._on_until = 0.0

    def _next_readings(self) -> list[dict[str, Any]]:
        return [self._reading(PULSE, self._random.randint(0, 9))]

    def _pause_s(self) -> float:
        if time.monotonic() < self._on_until:
            return 0.2
        off_s = self._random.uniform(SILENT_S + 3, SILENT_S + 8)
        self._on_until = time.monotonic() + off_s + self._random.uniform(3, 6)
        return off_s
