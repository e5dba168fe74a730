"""Readings as the columns of a Parquet export, in memory: arrays of pyarrow."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import bson
import numpy as np
from bson.datetime_ms import DatetimeMS

from reader.history.attributes import around_coordinates, attributes_of, is_moving, with_coordinates
from reader.history.lines import json_module_floats
from reader.responses import AS_STORED, Document, json_value
from readings.csv_row import compact
from readings.document import date_ms
from readings.reading import ATTRIBUTES
from storage.codec.columns import Booleans, Columns, Kind
from storage.codec.packed import Integers

# One of the four `value…` columns has the value, the others are null.
PARQUET_COLUMNS = (
    *("device", "sensorType", "ts", "seq"),
    *("valueNumber", "valueInteger", "valueBoolean", "valueText"),
    *("receivedAt", *ATTRIBUTES),
)
# Attributes that are not always texts: their column has JSON, so that a location `"hall"` is not one `{"lat":…}`.
_JSON_ATTRIBUTES = {"location", "tags"}


class Arrays:
    """Makes batches of rows of `schema`, whose columns are `PARQUET_COLUMNS`."""

    def __init__(self, arrow: Any) -> None:
        """Use this module `pyarrow`, which only a process that encodes Parquet imports."""
        self._arrow = arrow
        self._text, self._time = arrow.string(), arrow.timestamp("ms", tz="UTC")
        # Texts that repeat: in memory they are dictionaries, in the file plain texts.
        self._repeated = arrow.dictionary(arrow.int32(), self._text)
        values = [arrow.float64(), arrow.int64(), arrow.bool_(), self._text]
        self._types = [
            *(self._repeated, self._repeated, self._time, arrow.int64()),
            *(*values, self._time, *[self._repeated] * len(ATTRIBUTES)),
        ]
        self.schema = arrow.schema(list(zip(PARQUET_COLUMNS, self._types, strict=True)))

    def of(self, device: str, sensor_type: str, columns: Columns) -> Any:
        """Return a record batch of readings of one series, at least one."""
        is_other = columns.kinds == Kind.OTHER
        if not is_other.any():
            return self._of_columns(device, sensor_type, columns)
        documents = [bson.decode(columns.others[at], AS_STORED) for at in columns.values[is_other].tolist()]
        batches = [self._of_documents(device, sensor_type, documents)]
        if len(documents) < len(columns):
            batches.append(self._of_columns(device, sensor_type, columns.take(~is_other)))
        order = np.argsort(np.concatenate((np.flatnonzero(is_other), np.flatnonzero(~is_other))))
        return self._arrow.concat_batches(batches).take(self._arrow.array(order))

    def _of_columns(self, device: str, sensor_type: str, columns: Columns) -> Any:
        arrow = self._arrow
        arrays = [
            *(self._same(name, len(columns)) for name in (device, sensor_type)),
            *(arrow.array(columns.ts).view(self._time), arrow.array(columns.seq)),
            *(*self._values(columns), arrow.array(columns.received).view(self._time), *self._attributes(columns)),
        ]
        return arrow.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _same(self, text: str, count: int) -> Any:
        # With a type: without one, pyarrow tries to import pandas each time.
        texts = self._arrow.array([text], self._text)
        return self._arrow.DictionaryArray.from_arrays(np.zeros(count, np.int32), texts)

    def _values(self, columns: Columns) -> list[Any]:
        arrow, values, kinds = self._arrow, columns.values, columns.kinds
        texts = [text.decode(errors="replace") for text in columns.texts]
        is_text = kinds == Kind.TEXT
        integers = (kinds == Kind.INT32) | (kinds == Kind.INT64)
        return [
            self._where(kinds == Kind.FLOAT, values.view(np.float64), arrow.float64()),
            self._where(integers, values, arrow.int64()),
            self._where(kinds == Kind.BOOLEAN, values != 0, arrow.bool_()),
            arrow.array(texts, self._text).take(self._where(is_text, values, arrow.int64()))
            if is_text.any()
            else arrow.nulls(len(columns), self._text),
        ]

    def _where(self, where: Booleans, values: Any, type_: Any) -> Any:
        """Return an array with nulls elsewhere."""
        if where.all():
            return self._arrow.array(values)
        return self._arrow.array(values, mask=~where) if where.any() else self._arrow.nulls(len(values), type_)

    def _attributes(self, columns: Columns) -> list[Any]:
        """Return a column of each attribute."""
        tails = columns.tails
        used, index = (tails[:1], None) if (tails == tails[0]).all() else np.unique(tails, return_inverse=True)
        documents = attributes_of(columns.tail_list[at] for at in used.tolist())
        arrays = []
        for name in ATTRIBUTES:
            texts = [_attribute(name, document.get(name)) for document in documents]
            if name == "location" and columns.places is not None:
                arrays.append(self._arrow.array(_locations(columns, texts, used, index), self._repeated))
            elif all(text is None for text in texts):
                arrays.append(self._arrow.nulls(len(columns), self._repeated))
            elif index is None:
                arrays.append(self._same(str(texts[0]), len(columns)))
            else:
                arrays.append(self._arrow.array(texts, self._repeated).take(self._arrow.array(index)))
        return arrays

    def _of_documents(self, device: str, sensor_type: str, documents: Sequence[Document]) -> Any:
        """Return readings that are kept whole, of which any field but the key may have any type."""
        rows = [
            (
                *(device, sensor_type, _arrow_time(document["_id"]["ts"]), int(document["_id"]["seq"])),
                *_value(document.get("value")),
                _arrow_time(document.get("receivedAt")),
                *(_attribute(name, document.get(name)) for name in ATTRIBUTES),
            )
            for document in documents
        ]
        arrays = [
            self._arrow.array(column, type_) for column, type_ in zip(zip(*rows, strict=True), self._types, strict=True)
        ]
        return self._arrow.RecordBatch.from_arrays(arrays, schema=self.schema)


def _locations(columns: Columns, texts: list[str | None], used: Integers, index: Integers | None) -> list[Any]:
    """Return the locations of readings of which some have their coordinates in `places`."""
    index = np.zeros(len(columns), np.int64) if index is None else index
    locations: list[Any] = [texts[at] for at in index.tolist()]
    for number, tail in enumerate(used.tolist()):
        text = texts[number]
        if text is not None and columns.places is not None and is_moving(columns.tail_list[tail]):
            rows = np.flatnonzero(index == number)
            coordinates = [json_module_floats(place) for place in columns.places[rows].T]
            found = with_coordinates(around_coordinates(text.encode()), coordinates)
            for at, location in zip(rows.tolist(), found, strict=True):
                locations[at] = location.decode()
    return locations


def _value(value: Any) -> tuple[Any, ...]:
    """Return a value in the column of its type, or the text of a type that only a manual write can have stored."""
    if isinstance(value, bool):
        return None, None, value, None
    if isinstance(value, float):
        return value, None, None, None
    if isinstance(value, int):
        return None, int(value), None, None
    return None, None, None, None if value is None else str(json_value(value))


def _arrow_time(time_: Any) -> datetime | int | None:
    """Return a date of MongoDB as pyarrow takes it: naive datetimes are UTC, integers milliseconds since 1970."""
    if isinstance(time_, datetime):
        return time_
    return date_ms(time_) if isinstance(time_, DatetimeMS) else None


def _attribute(name: str, attribute: Any) -> str | None:
    if attribute is None:
        return None
    return attribute if isinstance(attribute, str) and name not in _JSON_ATTRIBUTES else compact(attribute)
