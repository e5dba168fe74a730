"""Values of documents that are kept whole, in columns: where another field did not fit but the value would have."""

from dataclasses import replace
from typing import Any

import bson
import numpy as np
from bson import Int64

from readings.document import AS_MILLISECONDS
from storage.codec.columns import INT32, Columns, Kind

_READABLE = AS_MILLISECONDS.with_options(unicode_decode_error_handler="replace")


def with_plain_values(columns: Columns) -> Columns:
    """Return the columns with the values of whole documents that are numbers, booleans or texts.

    The others keep their kind, OTHER. What is returned has the values of all readings, and no longer their documents.
    """
    index = np.flatnonzero(columns.kinds == Kind.OTHER).tolist() if columns.others else []
    found = {at: bson.decode(columns.others[columns.values[at]], _READABLE).get("value") for at in index}
    found = {at: value for at, value in found.items() if isinstance(value, bool | int | float | str)}
    if not found:
        return columns
    kinds, values = columns.kinds.copy(), columns.values.copy()
    texts = [*columns.texts]
    for at, value in found.items():
        kinds[at], values[at] = _kind_and_bits(value, texts)
    return replace(columns, kinds=kinds, values=values, texts=texts)


def _kind_and_bits(value: Any, texts: list[bytes]) -> tuple[Kind, int]:
    """Return a value as the columns have it; a text is added to the others."""
    if isinstance(value, bool):
        return Kind.BOOLEAN, int(value)
    if isinstance(value, str):
        texts.append(value.encode())
        return Kind.TEXT, len(texts) - 1
    if isinstance(value, float):
        return Kind.FLOAT, int(np.float64(value).view(np.int64))
    return Kind.INT64 if isinstance(value, Int64) or value not in INT32 else Kind.INT32, int(value)
