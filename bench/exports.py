"""What the formats of an export take, rows a second and core: from documents one by one, from columns, from blocks.

No server: everything is in memory. `documents` is what an export did with them: decode each, and encode it as a line of
CSV; the other lines are compared with that. CPU of all threads is counted. pyarrow is imported before.
"""

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import bson
import numpy as np
from msgspec.structs import replace

from bench.blocks import DEVICE, EVER, OWNER, cpu_us, documents, row, synthetic
from reader.history.csv_lines import csv_form
from reader.history.lines import LineForm
from reader.history.ndjson_lines import ndjson_form
from reader.history.parquet import ParquetRows
from reader.responses import AS_STORED
from readings.document import encode_document
from readings.place import Place
from readings.reading import Reading
from runtime.command_line import whole_number
from storage.codec.block import decode_block, encode_block
from storage.codec.columns import Columns
from storage.codec.from_documents import columns_of

SIZES = (1000, 4096, 16_384)
SENSOR = "temperature"
FORMS = {
    "CSV": csv_form(DEVICE, SENSOR),
    "CSV for spreadsheets": csv_form(DEVICE, SENSOR, for_spreadsheet=True),
    "NDJSON": ndjson_form(DEVICE, SENSOR),
}


def data(rng: np.random.Generator) -> dict[str, list[bytes]]:
    """Return documents of several series."""
    found = {
        "1 Hz, two decimals": documents(rng, *synthetic(rng, 1000, 2)),
        "each 5 min, full precision": documents(rng, *synthetic(rng, 300_000, None)),
    }
    ts, values = synthetic(rng, 1000, 2)
    tags = {"site": "north", "line": "4"}
    plain = [
        Reading(SENSOR, value, at, 0, at + 5, unit="mm/s", tags=tags)
        for at, value in zip(ts.tolist(), values.tolist(), strict=True)
    ]
    found["with unit and tags"] = encoded(plain)
    found["moving"] = encoded(
        replace(reading, location=Place(48 + number / 1e5, 11.5)) for number, reading in enumerate(plain)
    )
    types: list[Any] = [3, 3.5, True, "open, ajar"]
    found["values of all types"] = encoded(
        replace(reading, value=types[number % 4]) for number, reading in enumerate(plain)
    )
    found["tags of its own each"] = encoded(
        replace(reading, tags={"job": str(number)}) for number, reading in enumerate(plain)
    )
    return found


def encoded(readings: Iterable[Reading]) -> list[bytes]:
    return [encode_document(OWNER, DEVICE, reading) for reading in readings]


def one_by_one(form: LineForm, body: bytes) -> bytes:
    """Return the lines of documents, each decoded and encoded by itself."""
    return b"".join([form.document(document) for document in bson.decode_all(body, AS_STORED)])


def in_lines(form: LineForm, columns: Columns) -> bytes:
    """Return the lines of columns."""
    return b"".join(form.lines(columns))


def as_parquet(parts: list[Columns]) -> bytes:
    """Return a file of all parts."""
    rows = ParquetRows()
    file = [rows.take_row_group() for columns in parts if rows.append(DEVICE, SENSOR, columns)]
    return b"".join([*file, rows.end()])


def measure(name: str, made: list[bytes], size: int) -> dict[str, float]:
    """Print a line for each format and source; return the rows a second by these two."""
    bodies = [b"".join(made[at : at + size]) for at in range(0, len(made) - size + 1, size)]
    parts = [columns_of(body, 1) for body in bodies]
    blocks = [encode_block(columns, *EVER) for columns in parts]
    count, rates = len(bodies) * size, {}

    def add(what: str, call: Callable[[Any], Any], given: list[Any]) -> Any:
        found, micros = cpu_us(call, given)
        rates[what] = count / micros * 1e6
        row(name, size, what, round(rates[what]), rates[what] / rates["CSV, documents"])
        return found

    expected = add("CSV, documents", lambda body: one_by_one(FORMS["CSV"], body), bodies)
    for form_name, form in FORMS.items():
        lines = add(f"{form_name}, columns", partial(in_lines, form), parts)
        if form_name == "CSV" and lines != expected:
            raise AssertionError("the lines differ")
    add("CSV, blocks", lambda block: in_lines(FORMS["CSV"], decode_block(block)), blocks)
    add("Parquet, columns", as_parquet, [parts])
    add("Parquet, blocks", lambda some: as_parquet(list(map(decode_block, some))), [blocks])
    return rates


def main() -> None:
    """Measure all series and sizes."""
    parser = argparse.ArgumentParser(prog="python -m bench exports", description=__doc__)
    parser.add_argument("--seed", type=whole_number(0), default=7)
    parser.add_argument("--size", type=whole_number(1), action="append", help="readings a batch; may be repeated")
    arguments = parser.parse_args()
    ParquetRows()
    row("series", "readings a batch", "format, from", "rows a second", "of CSV, documents")
    row(*["---"] * 5)
    for name, made in data(np.random.default_rng(arguments.seed)).items():
        for size in arguments.size or SIZES:
            measure(name, made, size)


if __name__ == "__main__":
    main()
