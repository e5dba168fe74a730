"""Writes the golden files of the current version, once a version: `python -m tests.storage.codec.golden`.

NAME.block is a block, NAME.bson.zz are its documents, back to back, compressed. The second half of the readings has
seal number 8, the first one 7.
"""

import random
import zlib
from pathlib import Path
from typing import Any

from bson import Decimal128, Int64

from storage.codec.encode import encode
from storage.codec.sections import VERSION
from tests.storage.codec.cases import START_MS, columns_by_seal, document, moving

FOLDER = Path(__file__).parent / "golden"


def every_type() -> list[bytes]:
    values = [21.5, 21, Int64(21), -0.0, True, "on", "", "öffnet", False, 2**60, Decimal128("1.50"), None, float("nan")]
    tags: list[dict[str, Any]] = [
        {},
        {"unit": "°C"},
        {"location": "hall 1", "tags": {"a": "b"}},
        {"location": {"lat": 1.5, "lon": 2.5}},
    ]
    count = range(6 * len(values))
    return [
        document(values[n % len(values)], START_MS + n // 3, n % 3, START_MS + n * n, **tags[n // 9 % 4]) for n in count
    ]


def steady(rng: random.Random) -> list[bytes]:
    made, level = [], 21.0
    for n in range(200):
        ts, level = START_MS + n * 1000 + rng.randint(-20, 20), level + rng.gauss(0, 0.05)
        made.append(document(round(level, 2), ts, 0, ts + rng.randint(3, 20), unit="°C", quality="good"))
    return made


def without_times(rng: random.Random) -> list[bytes]:
    return [
        document(rng.gauss(70, 1) if n % 7 else n, START_MS + n * 250, 2**52 + rng.getrandbits(52), START_MS + n * 250)
        for n in range(60)
    ]


def replayed() -> list[bytes]:
    return [document(n % 90 * 10**9, START_MS + n * 300_000, 0, START_MS + n // 50) for n in range(200)]


def main() -> None:
    """Write what is not there yet."""
    rng = random.Random(1)
    steadily, timeless = steady(rng), without_times(rng)
    cases = {"every-type": every_type(), "steady": steadily, "without-times": timeless}
    cases |= {"replayed": replayed(), "moving": moving(60), "pair": steadily[:2]}
    for name, made in cases.items():
        file = FOLDER / f"v{VERSION}-{name}.block"
        if not file.exists():
            half = len(made) // 2
            file.write_bytes(encode(columns_by_seal([(7, made[:half]), (8, made[half:])])))
            file.with_suffix(".bson.zz").write_bytes(zlib.compress(b"".join(made), 9))


if __name__ == "__main__":
    main()
