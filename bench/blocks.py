"""What blocks of readings take, in bytes and time, beside Parquet and columns with a general compressor.

One core, no server. `columns` is from arrays in memory to bytes and back, which every format here does; `documents` is
from the documents of `readings` to a block and its head, and back. Every format keeps ts, seq, value, receivedAt and
the seal number; receivedAt is 3 ms and more behind ts, as on a local network.
"""

import argparse
import csv
import importlib
import io
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import bson
import numpy as np
import numpy.typing as npt

from readings.document import encode_document, series_bytes
from readings.reading import Reading
from runtime.command_line import whole_number
from storage.codec.block import decode_block, encode_block
from storage.codec.columns import Columns
from storage.codec.decode import decode, decode_values
from storage.codec.encode import encode
from storage.codec.from_documents import columns_of
from storage.codec.to_documents import documents_of

SIZES = (150, 1000, 8192)
OWNER, DEVICE = "0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-0000000000d1"
START_MS = 1_767_225_600_000
EVER = (-(2**63), 0), (2**63 - 1, 0)
# Blocks of each size that are measured, and readings of a synthetic series.
BLOCKS = 60
READINGS = 65_536
Given = TypeVar("Given")
Found = TypeVar("Found")
Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Format:
    """How columns become bytes, and bytes columns."""

    name: str
    encode: Callable[[Columns], bytes]
    decode: Callable[[bytes], Any]
    # Formats whose calls take longer than a block of this size is worth are not measured on smaller ones.
    smallest: int = 0


def synthetic(rng: np.random.Generator, step_ms: int, decimals: int | None) -> tuple[Times, Values]:
    """Return times with 20 ms of jitter and a level that wanders, with noise."""
    ts = START_MS + np.arange(READINGS) * step_ms + rng.integers(-20, 21, READINGS)
    wander = 0.03 if step_ms == 1000 else 0.3
    level = 70 + np.cumsum(rng.normal(0, wander, READINGS)) + rng.normal(0, 0.05, READINGS)
    return ts, level if decimals is None else np.round(level, decimals)


def recorded(file: Path) -> tuple[Times, Values]:
    """Return the times and values of a CSV file, of each time the first row."""
    with file.open() as rows:
        pairs = {row["timestamp"]: float(row["value"]) for row in reversed(list(csv.DictReader(rows)))}
    at = [int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000) for text in pairs]
    order = np.argsort(at)
    return np.array(at)[order], np.array(list(pairs.values()))[order]


def documents(rng: np.random.Generator, ts: Times, values: Values) -> list[bytes]:
    """Return the documents that MongoDB has of these readings."""
    received = ts + 3 + rng.exponential(4, len(ts)).astype(np.int64)
    rows = zip(ts.tolist(), values.tolist(), received.tolist(), strict=True)
    return [encode_document(OWNER, DEVICE, Reading("temperature", value, at, 0, got)) for at, value, got in rows]


def parquet() -> list[Format]:
    """Return Parquet with its defaults and with the encodings that suit, where pyarrow is installed."""
    try:
        arrow: Any = importlib.import_module("pyarrow")
        files: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        return []

    def writer(**options: Any) -> Callable[[Columns], bytes]:
        def write(columns: Columns) -> bytes:
            names = {"ts": columns.ts, "seq": columns.seq, "value": columns.values.view("<f8")}
            table = arrow.table(names | {"receivedAt": columns.received, "seal": columns.seals})
            with io.BytesIO() as file:
                files.write_table(
                    table, file, compression="zstd", write_statistics=False, store_schema=False, **options
                )
                return file.getvalue()

        return write

    def read(data: bytes) -> list[Any]:
        return [column.to_numpy() for column in files.read_table(arrow.BufferReader(data)).columns]

    deltas = dict.fromkeys(("ts", "seq", "receivedAt", "seal"), "DELTA_BINARY_PACKED")
    chosen = writer(use_dictionary=False, column_encoding=deltas | {"value": "BYTE_STREAM_SPLIT"})
    return [Format("Parquet", writer(), read, 1000), Format("Parquet, encodings chosen", chosen, read)]


def planes(array: Times) -> bytes:
    """Return differences with all first bytes together, then all second ones."""
    steps = np.diff(array, prepend=0)
    zigzag = (steps << 1) ^ (steps >> 63)
    return zigzag.view(np.uint8).reshape(-1, 8).T.tobytes()


def from_planes(data: bytes) -> Times:
    """Return what `planes` took."""
    zigzag = np.frombuffer(data, np.uint8).reshape(8, -1).T.copy().view(np.int64).ravel()
    return np.cumsum((zigzag >> 1) ^ -(zigzag & 1))


def byte_planes(name: str, compress: Callable[[bytes], bytes], expand: Callable[[bytes], bytes]) -> Format:
    """Return differences, decimals as integers, in byte planes, with a general compressor."""

    def write(columns: Columns) -> bytes:
        floats = columns.values.view("<f8")
        scaled = np.rint(floats * 100).astype(np.int64)
        values = scaled if np.array_equal(scaled / 100, floats) else columns.values
        lags = columns.received - columns.ts
        return compress(b"".join(map(planes, (columns.ts, columns.seq, values, lags, columns.seals))))

    def read(data: bytes) -> list[Times]:
        plain = expand(data)
        size = len(plain) // 5
        return [from_planes(plain[at : at + size]) for at in range(0, len(plain), size)]

    return Format(name, write, read)


def formats(series: bytes) -> list[Format]:
    """Return all that are measured."""
    found = [Format("blocks", encode, lambda data: decode(data, series)), *parquet()]
    found.append(byte_planes("byte planes, zlib", zlib.compress, zlib.decompress))
    try:
        zstd: Any = importlib.import_module("zstandard")
    except ImportError:
        return found
    expand = zstd.ZstdDecompressor().decompress
    return [*found, byte_planes("byte planes, zstd", zstd.ZstdCompressor().compress, expand)]


def cpu_us(call: Callable[[Given], Found], given: list[Given], repeats: int = 3) -> tuple[list[Found], float]:
    """Return the results, and the µs of CPU of all calls, the least of some repeats."""
    least = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        found = [call(each) for each in given]
        least = min(least, time.process_time() - begin)
    return found, least * 1e6


def row(*cells: object) -> None:
    print(
        "| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True
    )


def measure(name: str, made: list[bytes], size: int) -> None:
    """Print a line for each format."""
    bodies = [b"".join(made[at : at + size]) for at in range(0, len(made) - size + 1, size)][:BLOCKS]
    count, series = len(bodies) * size, series_bytes(made[0])
    parsed = [columns_of(body, 7) for body in bodies]
    for each in formats(series):
        if size >= each.smallest:
            packed, encoding = cpu_us(each.encode, parsed)
            _, decoding = cpu_us(each.decode, packed)
            row(name, size, each.name, sum(map(len, packed)) / count, encoding / count, decoding / count)
    blocks, encoding = cpu_us(lambda body: encode_block(columns_of(body, 7), *EVER), bodies)
    back, decoding = cpu_us(lambda block: documents_of(decode_block(block)), blocks)
    if [b"".join(each) for each in back] != bodies:
        raise AssertionError("the documents did not come back")
    heads = sum(len(bson.encode(block.head.document())) for block in blocks)
    whole = (heads + sum(len(block.columns) for block in blocks)) / count
    row(name, size, "blocks and heads, documents", whole, encoding / count, decoding / count)
    _, charting = cpu_us(decode_values, [block.columns for block in blocks])
    row(name, size, "blocks, ts and value only", "", "", charting / count)


def main() -> None:
    """Measure all, or with --data also recorded series."""
    parser = argparse.ArgumentParser(prog="python -m bench blocks", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with CSV files: timestamp,value")
    parser.add_argument("--seed", type=whole_number(0), default=7)
    arguments = parser.parse_args()
    if arguments.data is not None and not arguments.data.is_dir():
        parser.error(f"argument --data: there is no folder {arguments.data}")
    rng = np.random.default_rng(arguments.seed)
    data = {
        "1 Hz, two decimals": synthetic(rng, 1000, 2),
        "1 Hz, full precision": synthetic(rng, 1000, None),
        "each 5 min, full precision": synthetic(rng, 300_000, None),
    }
    for file in sorted(arguments.data.glob("*.csv")) if arguments.data else []:
        data[file.stem] = recorded(file)
    row("series", "readings a block", "format", "bytes a reading", "µs to encode", "µs to decode")
    row(*["---"] * 6)
    for name, (ts, values) in data.items():
        made = documents(rng, ts, values)
        for size in SIZES:
            if size <= len(made):
                measure(name, made, size)


if __name__ == "__main__":
    main()
