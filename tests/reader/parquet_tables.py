"""Parquet files as tests read them."""

import io
from typing import Any

from pyarrow import parquet


def table_of(file: bytes) -> Any:
    """Return a file's content. Without threads: pyarrow 26.0.1 may abort the interpreter's exit after using them."""
    return parquet.ParquetFile(io.BytesIO(file)).read(use_threads=False)


def row_groups_of(file: bytes) -> list[int]:
    """Return the numbers of rows of a file's row groups."""
    metadata = parquet.ParquetFile(io.BytesIO(file)).metadata
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def value_of(row: dict[str, Any]) -> Any:
    """Return the value of a row: that of the one column that has it."""
    columns = ("valueNumber", "valueInteger", "valueBoolean", "valueText")
    (value,) = (row[name] for name in columns if row[name] is not None)
    return value
