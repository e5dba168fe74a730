"""From columns back to the documents of `readings`, byte for byte."""

import struct

import numpy as np

from storage.codec.columns import Columns, Kind
from storage.codec.distinct import distinct
from storage.codec.form import (
    ID_HEAD,
    RECEIVED_HEAD,
    SEQ_HEAD,
    TS_HEAD,
    TS_SEQ_BYTES,
    VALUE_NAME,
    VALUE_SIZES,
    VALUE_TYPES,
    coordinates_of,
)
from storage.codec.packed import Integers

_LENGTH = struct.Struct("<i")
_TS_SEQ = struct.Struct("<q5sq")
# Up to this many documents are faster one by one.
_FEW = 8
_INT64 = struct.Struct("<q")


def documents_of(columns: Columns) -> list[bytes]:
    """Return the readings as documents, in the order of the columns."""
    form = columns.kinds.astype(np.int64) << 32 | columns.tails
    if len(form) == 1 or (form == form[:1]).all():
        return _of_one_form(columns, None)
    documents = [b""] * len(columns)
    for each in distinct(form):
        index = np.flatnonzero(form == each)
        for at, document in zip(index.tolist(), _of_one_form(columns, index), strict=True):
            documents[at] = document
    return documents


def _of_one_form(columns: Columns, index: Integers | None) -> list[bytes]:
    """Return the documents of readings with one kind of value and one tail: those at `index`, or all."""
    if index is not None:
        columns = columns.take(index)
    if not len(columns):
        return []
    kind = Kind(int(columns.kinds[0]))
    if kind == Kind.OTHER:
        return [columns.others[at] for at in columns.values.tolist()]
    tail = columns.tail_list[columns.tails[0]]
    if kind == Kind.TEXT or len(columns) <= _FEW:
        return _one_by_one(columns, kind, tail)
    return _of_numbers(columns, kind, tail)


def _head(series: bytes) -> bytes:
    """Return the bytes before `ts`' milliseconds, without the document's length."""
    return ID_HEAD + _LENGTH.pack(4 + len(series) + TS_SEQ_BYTES) + series + TS_HEAD


def _of_numbers(columns: Columns, kind: Kind, tail: bytes) -> list[bytes]:
    head, size = _head(columns.series), VALUE_SIZES[kind]
    ts_at = 4 + len(head)
    seq_at = ts_at + 8 + len(SEQ_HEAD)
    value_head = bytes((0, kind)) + VALUE_NAME
    value_at = seq_at + 8 + len(value_head)
    received_at = value_at + size + len(RECEIVED_HEAD)
    tail_at = received_at + 8
    length = tail_at + len(tail)  # without the tail's first byte, with a closing zero
    template = b"".join(
        (
            *(_LENGTH.pack(length), head, bytes(8), SEQ_HEAD, bytes(8), value_head),
            *(bytes(size), RECEIVED_HEAD, bytes(8), tail[1:], b"\x00"),
        )
    )
    rows = np.empty((len(columns), length), np.uint8)
    rows[:] = np.frombuffer(template, np.uint8)

    def column(at: int, dtype: str) -> Integers:
        return np.ndarray((len(rows),), dtype, rows, at, (length,))

    column(ts_at, "<i8")[:] = columns.ts
    column(seq_at, "<i8")[:] = columns.seq
    column(value_at, VALUE_TYPES[kind])[:] = columns.values
    column(received_at, "<i8")[:] = columns.received
    if tail[0] and columns.places is not None:
        for name, at in enumerate(coordinates_of(tail[1:])):
            column(tail_at + at, "<f8")[:] = columns.places[:, name]
    body = rows.tobytes()
    return [body[at : at + length] for at in range(0, len(body), length)]


def _one_by_one(columns: Columns, kind: Kind, tail: bytes) -> list[bytes]:
    """Return documents whose values have no fixed size, or few others."""
    head, value_head = _head(columns.series), bytes((0, kind)) + VALUE_NAME
    fixed = 4 + len(head) + _TS_SEQ.size + len(value_head) + len(RECEIVED_HEAD) + 8 + len(tail)
    places = [()] * len(columns) if not tail[0] or columns.places is None else map(tuple, columns.places.tolist())
    ts_seq_received = (columns.ts.tolist(), columns.seq.tolist(), columns.received.tolist())
    documents = []
    for ts, seq, received, value, place in zip(*ts_seq_received, _packed(columns, kind), places, strict=True):
        documents.append(
            b"".join(
                (
                    *(_LENGTH.pack(fixed + len(value)), head, _TS_SEQ.pack(ts, SEQ_HEAD, seq), value_head, value),
                    *(RECEIVED_HEAD, _INT64.pack(received), _with_place(tail[1:], place), b"\x00"),
                )
            )
        )
    return documents


def _packed(columns: Columns, kind: Kind) -> list[bytes]:
    """Return the values as BSON."""
    values = columns.values.tolist()
    if kind == Kind.TEXT:
        return [_LENGTH.pack(len(columns.texts[at]) + 1) + columns.texts[at] + b"\x00" for at in values]
    return [value.to_bytes(8, "little", signed=True)[: VALUE_SIZES[kind]] for value in values]


def _with_place(tail: bytes, place: tuple[float, ...]) -> bytes:
    if not place:
        return tail
    filled = bytearray(tail)
    for at, coordinate in zip(coordinates_of(tail), place, strict=False):
        struct.pack_into("<d", filled, at, coordinate)
    return bytes(filled)
