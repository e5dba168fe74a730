"""The bodies of `POST /devices/batch`: what is asked, and the outcome of every row as JSON or CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from auth.device_import import Outcome, Refusal, RefusalCode
from auth.http.bodies import BatchDevice
from auth.http.device_rows import MAX_ROWS

COLUMNS = ("index", "id", "name", "token", "code", "detail")

DeviceBatch = Annotated[list[BatchDevice], Meta(max_length=MAX_ROWS)]


class BatchQuery(msgspec.Struct):
    """Query of `POST /devices/batch`: whether each device gets a token."""

    tokens: bool = False


class BatchRow(msgspec.Struct):
    """The outcome of a row: `id` and `name` of its device, and a `token` if asked for; or `code` and `detail`."""

    index: Annotated[int, Meta(ge=0, lt=MAX_ROWS)]
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    token: str | UnsetType = UNSET
    code: RefusalCode | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class BatchAnswer(msgspec.Struct):
    """The outcome of every row, in order."""

    items: Annotated[list[BatchRow], Meta(max_length=MAX_ROWS)]


def answer_rows(first: int, outcomes: Sequence[Outcome], tokens: Iterable[str] | None) -> list[BatchRow]:
    """Return the rows of an answer from number `first` on; `tokens` are those of the registered devices, in order."""
    given = iter(tokens) if tokens is not None else None
    rows = []
    for index, outcome in enumerate(outcomes, first):
        if isinstance(outcome, Refusal):
            rows.append(BatchRow(index, code=outcome.code, detail=outcome.detail))
        else:
            token = UNSET if given is None else next(given)
            rows.append(BatchRow(index, outcome.device.id, outcome.device.name, token))
    return rows


def csv_of(rows: Iterable[BatchRow], columns: Sequence[str] = COLUMNS) -> bytes:
    """Return rows as CSV (RFC 4180) with a line of names; what a row has not is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(getattr(row, name)) for name in columns] for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    return "" if value is UNSET else value
