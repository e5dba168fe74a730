"""From the documents of `readings` to columns: many at once, where they have the same form.

Neighbours in a series mostly differ only in ts, seq, value and receivedAt, at the same places. All documents of one
length are compared with the first of them at once; those that are equal to it everywhere else are taken as columns.
"""

import struct

import bson
import numpy as np
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON

from readings.document import DocumentError, id_bytes, series_bytes
from storage.codec.columns import Booleans, Bytes, Columns, Kind
from storage.codec.form import SEQ_HEAD, VALUE_TYPES, Form, coordinates_of, form_of
from storage.codec.packed import Floats, Integers

_LENGTH = struct.Struct("<i")
# The milliseconds of `ts`, type and name of `seq`, and `seq`; the closing zero of `_id` follows.
_TS_SEQ = struct.Struct("<q5sq")
_REPLACING: CodecOptions[dict[str, object]] = CodecOptions(unicode_decode_error_handler="replace")
# Documents of one length with more forms than this are read one by one.
_MAX_FORMS = 16


def split(body: bytes) -> Integers:
    """Return where each of the documents in `body` starts, and the end; DocumentError when lengths do not fit."""
    size = len(body)
    length = _LENGTH.unpack_from(body)[0] if size >= 5 else 0
    if length >= 5 and size % length == 0:
        lengths = np.ndarray((size // length,), "<i4", body, 0, (length,))
        if (lengths == length).all():
            return np.arange(0, size + 1, length)
    starts, at, unpack = [], 0, _LENGTH.unpack_from
    while at + 5 <= size:
        starts.append(at)
        (length,) = unpack(body, at)
        if length < 5:
            raise DocumentError(f"the document at byte {at} gives its length as {length}")
        at += length
    if at != size:
        raise DocumentError(f"the documents do not end at byte {size}")
    return np.array([*starts, size])


def columns_of(body: bytes, seal: int) -> Columns:
    """Return documents of one series, back to back, as columns, all with one seal number.

    DocumentError when they are not whole, or of several series, or have another key than readings.
    """
    starts = split(body)
    if len(starts) < 2:
        raise DocumentError("there is no document")
    series = series_bytes(body[: starts[1]])
    found = _Found(series, len(starts) - 1, seal)
    lengths = np.diff(starts)
    # Runs of documents of one length are copied together.
    ends = np.flatnonzero(np.diff(lengths, append=0))
    if len(ends) == 1:
        _read_rows(np.frombuffer(body, np.uint8).reshape(-1, lengths[0]), np.arange(len(lengths)), found)
        return found.columns()
    runs: dict[int, list[bytes]] = {}
    at = 0
    for length, until in zip(lengths[ends].tolist(), starts[ends + 1].tolist(), strict=True):
        runs.setdefault(length, []).append(body[at:until])
        at = until
    for length, parts in runs.items():
        rows = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, length)
        _read_rows(rows, np.flatnonzero(lengths == length), found)
    return found.columns()


class _Found:
    """The columns while they are filled."""

    def __init__(self, series: bytes, count: int, seal: int) -> None:
        self._series = series
        self._ts, self._seq, self._received, self._values, self._tails = np.zeros((5, count), np.int64)
        self._seals = np.full(count, seal, np.int64)
        self._kinds = np.zeros(count, np.uint8)
        self._places: Floats | None = None
        self._tail_list: dict[bytes, int] = {}
        self._texts: dict[bytes, int] = {}
        self._others: list[bytes] = []

    def columns(self) -> Columns:
        """Return everything added; each index must have been added once."""
        return Columns(
            self._series,
            self._ts,
            self._seq,
            self._received,
            self._seals,
            self._kinds,
            self._values,
            self._tails,
            self._places,
            list(self._tail_list),
            list(self._texts),
            self._others,
        )

    def form(self, document: bytes) -> Form | None:
        """Return the document's form; DocumentError when it is of another series."""
        if series_bytes(document) != self._series:
            raise DocumentError("the documents are of several series")
        return form_of(document)

    def add_other(self, at: int, document: bytes) -> None:
        """Add a document whole; DocumentError when its key is not a reading's."""
        series = series_bytes(document)
        if _names(series) != ["owner", "device", "sensorType"]:
            raise DocumentError("the _id is not {owner, device, sensorType, ts, seq}")
        key = id_bytes(document)
        self._ts[at], seq_head, self._seq[at] = _TS_SEQ.unpack_from(key, len(key) - _TS_SEQ.size - 1)
        if seq_head != SEQ_HEAD:
            raise DocumentError("the _id does not end with ts and seq")
        self._values[at] = len(self._others)
        self._others.append(document)

    def add_one(self, at: int, document: bytes) -> None:
        """Add one document of any form; DocumentError when it is not a reading of this series."""
        form = self.form(document)
        if form is None:
            self.add_other(at, document)
        else:
            self.add_rows(np.frombuffer(document, np.uint8).reshape(1, -1), None, np.array([at]), form, ())

    def add_rows(
        self, rows: Bytes, matching: Booleans | None, index: Integers, form: Form, coordinates: tuple[int, ...]
    ) -> None:
        """Add the matching rows, all without `matching`: documents of one form, which become the readings `index`.

        `coordinates` are where the doubles of the location are if they differ, as offsets in the document.
        """

        def column(at: int, dtype: str) -> Integers:
            numbers: Integers = np.ndarray((len(rows),), dtype, rows, at, (rows.shape[1],))
            return numbers if matching is None else numbers[matching]

        self._ts[index] = column(form.ts_at, "<i8")
        self._seq[index] = column(form.ts_at + 13, "<i8")
        self._received[index] = column(form.received_at, "<i8")
        self._kinds[index] = form.kind
        if form.kind == Kind.TEXT:
            texts = column(form.value_at + 4, f"V{form.value_size - 5}").tolist() if form.value_size > 5 else [b""]
            known = self._texts
            self._values[index] = [known.setdefault(text, len(known)) for text in texts]
        else:
            self._values[index] = column(form.value_at, VALUE_TYPES[form.kind])
        tail = bytearray(rows[0 if matching is None else matching.argmax(), form.tail_at : -1].tobytes())
        for name, at in enumerate(coordinates):
            tail[at - form.tail_at : at - form.tail_at + 8] = bytes(8)
            if self._places is None:
                self._places = np.zeros((len(self._ts), 3))
            self._places[index, name] = column(at, "<f8")
        self._tails[index] = self._tail_list.setdefault(bytes((bool(coordinates), *tail)), len(self._tail_list))


def _names(series: bytes) -> list[str]:
    try:
        return list(bson.decode(_LENGTH.pack(len(series) + 5) + series + b"\0", _REPLACING))
    except InvalidBSON as error:
        raise DocumentError(f"the _id is damaged: {error}") from error


def _read_rows(rows: Bytes, index: Integers, found: _Found) -> None:
    """Add documents of one length, which are the readings `index`."""
    for _ in range(_MAX_FORMS):
        if not len(index):
            return
        document = rows[0].tobytes()
        form = found.form(document)
        if form is None:
            found.add_other(index[0], document)
            rows, index = rows[1:], index[1:]
            continue
        coordinates: tuple[int, ...] = ()
        matching = _matching(rows, form, ())
        if matching is not None and matching.mean() < 0.5 and (places := coordinates_of(document[form.tail_at : -1])):
            coordinates = tuple(form.tail_at + at for at in places)
            matching = _matching(rows, form, coordinates)
        if matching is None:
            found.add_rows(rows, None, index, form, coordinates)
            return
        found.add_rows(rows, matching, index[matching], form, coordinates)
        rows, index = rows[~matching], index[~matching]
    for at, row in zip(index.tolist(), rows, strict=True):
        found.add_one(at, row.tobytes())


def _matching(rows: Bytes, form: Form, coordinates: tuple[int, ...]) -> Booleans | None:
    """Return which rows are equal to the first one but for ts, seq, value, receivedAt and coordinates; None for all."""
    value_at, value_end = form.value_at, form.value_at + form.value_size
    if form.kind == Kind.TEXT:
        value_at, value_end = value_at + 4, value_end - 1
    numbers = (form.ts_at, form.ts_at + 13, form.received_at, *coordinates)
    gaps = sorted(((value_at, value_end), *((at, at + 8) for at in numbers)))
    differing = (rows != rows[0]).any(0)
    for start, end in gaps:
        differing[start:end] = False
    is_boolean = form.kind == Kind.BOOLEAN
    if not differing.any() and not (is_boolean and rows[:, value_at].max() > 1):
        return None
    matching = rows[:, value_at] <= 1 if is_boolean else np.ones(len(rows), np.bool_)
    for at in np.flatnonzero(differing).tolist():
        matching &= rows[:, at] == rows[0, at]
    return matching
