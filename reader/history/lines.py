"""Readings as lines of text, CSV or NDJSON: whole columns at once.

A line's fixed parts, its times and what all lines of a slice have in common are laid out as one array of bytes; values
are texts from an encoder written in C. Whatever readings share, such as their attributes, becomes text once.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import bson
import msgspec
import numpy as np

from reader.history.attributes import around_coordinates, attributes_of, is_moving, with_coordinates
from reader.history.time_texts import TIME_BYTES, time_texts
from reader.responses import AS_STORED, Document
from readings.reading import ATTRIBUTES
from storage.codec.columns import Columns, Kind
from storage.codec.distinct import distinct
from storage.codec.packed import Floats, Integers

# Readings encoded at once: 1 to 4 ms, in which nothing else runs, or some 10 where each one has attributes of its own.
SLICE = 4096
SMALL_SLICE = 1024
# Attributes take some 5 us to decode and encode.
_MANY_TAILS = 64

Texts = list[bytes]


@dataclass(frozen=True, slots=True)
class LineForm:
    """The lines of one series: the bytes before ts, then those after ts, seq, value, receivedAt and attributes.

    `attribute` returns an attribute, of this name, with what separates it from the one before; `absent` is that of one
    that a reading does not have. `document` encodes a whole document as a line, as columns' readings are.
    """

    head: bytes
    after_ts: bytes
    after_seq: bytes
    after_value: bytes
    after_received: bytes
    end: bytes
    floats: Callable[[Floats], Texts]
    coordinates: Callable[[Floats], Texts]
    text: Callable[[str], bytes]
    attribute: Callable[[str, Any], bytes]
    absent: bytes
    document: Callable[[Document], bytes]

    def lines(self, columns: Columns) -> Iterator[bytes]:
        """Yield the lines of readings of the series, some thousands at a time."""
        tails: dict[int, Texts] = {}
        texts: dict[int, bytes] = {}
        size = SMALL_SLICE if differ(columns) else SLICE
        for start in range(0, len(columns), size):
            yield _Slice(self, columns.take(slice(start, start + size)), tails, texts).encode()


class _Slice:
    """Readings that are encoded at once. `tails` and `texts` are those already encoded, by their indexes."""

    def __init__(self, form: LineForm, columns: Columns, tails: dict[int, Texts], texts: dict[int, bytes]) -> None:
        self._form = form
        self._columns = columns
        self._tails = tails
        self._texts = texts

    def encode(self) -> bytes:
        is_other = self._columns.kinds == Kind.OTHER
        if not is_other.any():
            pieces, _ = self._pieces(self._columns)
            return b"".join(pieces)
        columns = self._columns.take(~is_other)
        lines = [b""] * len(is_other)
        if len(columns):
            pieces, size = self._pieces(columns)
            for number, at in enumerate(np.flatnonzero(~is_other).tolist()):
                lines[at] = b"".join(pieces[number * size : (number + 1) * size])
        for at, whole in zip(np.flatnonzero(is_other).tolist(), self._columns.values[is_other].tolist(), strict=True):
            lines[at] = self._form.document(bson.decode(self._columns.others[whole], AS_STORED))
        return b"".join(lines)

    def _pieces(self, columns: Columns) -> tuple[Texts, int]:
        """Return the bytes of the lines one piece after the other, and the number of pieces of each line."""
        form, count = self._form, len(columns)
        parts: list[Texts] = []
        if _is_constant(columns.seq):
            behind = form.after_ts + b"%d" % columns.seq[0] + form.after_seq
            parts.append(_with_times(form.head, columns.ts, behind))
        else:
            parts.append(_with_times(form.head, columns.ts, form.after_ts))
            parts += [_integers(columns.seq), [form.after_seq] * count]
        parts.append(self._values(columns))
        if columns.places is None and _is_constant(columns.tails):
            at = int(columns.tails[0])
            self._encode_tails([at])
            (tail,) = self._tails[at]
            parts.append(_with_times(form.after_value, columns.received, form.after_received + tail))
        else:
            parts.append(_with_times(form.after_value, columns.received, form.after_received))
            parts.append(self._tail_texts(columns))
        pieces = [b""] * (count * len(parts))
        for number, part in enumerate(parts):
            pieces[number :: len(parts)] = part
        return pieces, len(parts)

    def _values(self, columns: Columns) -> Texts:
        kinds = columns.kinds
        if (kinds == kinds[0]).all():
            return self._of_kind(int(kinds[0]), columns.values)
        values = np.empty(len(kinds), object)
        for kind in distinct(kinds).tolist():
            index = kinds == kind
            values[index] = self._of_kind(kind, columns.values[index])
        return values.tolist()

    def _of_kind(self, kind: int, values: Integers) -> Texts:
        if kind == Kind.FLOAT:
            return self._form.floats(values.view(np.float64))
        if kind == Kind.TEXT:
            for at in distinct(values).tolist():
                if at not in self._texts:
                    self._texts[at] = self._form.text(self._columns.texts[at].decode(errors="replace"))
            return [self._texts[at] for at in values.tolist()]
        if kind == Kind.BOOLEAN:
            return [b"true" if value else b"false" for value in values.tolist()]
        return _integers(values)

    def _tail_texts(self, columns: Columns) -> Texts:
        """Return the attributes of each reading, and the end of its line."""
        tails = columns.tails
        used = distinct(tails).tolist()
        self._encode_tails(used)
        texts = [self._tails[at][0] for at in tails.tolist()]
        for number in used:
            parts = self._tails[number]
            if len(parts) > 1 and columns.places is not None:
                index = np.flatnonzero(tails == number)
                coordinates = [self._form.coordinates(place) for place in columns.places[index].T]
                for one, text in zip(index.tolist(), with_coordinates(parts, coordinates), strict=True):
                    texts[one] = text
        return texts

    def _encode_tails(self, used: list[int]) -> None:
        """Encode attributes and the end of the line: around coordinates, if there are any in `places`."""
        new = [at for at in used if at not in self._tails]
        tails = [self._columns.tail_list[at] for at in new]
        for at, tail, document in zip(new, tails, attributes_of(tails), strict=True):
            self._tails[at] = self._tail(document, is_moving(tail))

    def _tail(self, document: Document, moving: bool) -> Texts:
        form, parts = self._form, [b""]
        for name in ATTRIBUTES:
            text = form.attribute(name, document[name]) if name in document else form.absent
            if moving and name == "location":
                first, *others = around_coordinates(text)
                parts = [parts[0] + first, *others]
            else:
                parts[-1] += text
        parts[-1] += form.end
        return parts


def differ(columns: Columns) -> bool:
    """Return whether readings have little in common, so that each takes 1 us and more, not a fraction of it."""
    return columns.places is not None or len(columns.tail_list) > _MANY_TAILS or bool(columns.others)


def _is_constant(array: Integers) -> bool:
    return bool((array == array[0]).all())


def _with_times(before: bytes, times: Integers, behind: bytes) -> Texts:
    """Return each time as RFC 3339 between the same bytes."""
    template = before + bytes(TIME_BYTES) + behind
    rows = np.empty((len(times), len(template)), np.uint8)
    rows[:] = np.frombuffer(template, np.uint8)
    rows[:, len(before) : len(before) + TIME_BYTES] = time_texts(times)
    return rows.view(f"V{len(template)}")[:, 0].tolist()  # type: ignore[no-any-return]


def _integers(integers: Integers) -> Texts:
    return msgspec.json.encode(integers.tolist())[1:-1].split(b",")


def json_floats(floats: Floats) -> Texts:
    """Return floats as in JSON; those that are not finite are null."""
    return msgspec.json.encode(floats.tolist())[1:-1].split(b",")


def _python_floats(rare: Callable[[float], str], floats: Floats) -> Texts:
    """Return floats as Python writes them, which differs from `json_floats` outside of 1e-4 to 1e16."""
    texts = json_floats(floats)
    size = np.abs(floats)
    for at in np.flatnonzero(~((size >= 1e-4) & (size < 1e16) | (size == 0))).tolist():
        texts[at] = rare(float(floats[at])).encode()
    return texts


# As `repr`, and as `json.dumps`, which has other names for what is not finite.
repr_floats: Callable[[Floats], Texts] = partial(_python_floats, repr)
json_module_floats: Callable[[Floats], Texts] = partial(_python_floats, json.dumps)
