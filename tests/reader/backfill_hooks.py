"""Hooks into the query of a backfill, and readings for it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reader.history.from_mongodb import FromMongoDB
from tests.reader.harness import DEVICE, SENSOR, TS, make_reading

ONE = {"device": DEVICE, "sensorType": SENSOR}


def at(number: int, **more: Any) -> Any:
    """The reading at `number` tenths of a second."""
    return make_reading(number, TS + number * 100, **more)


def last_event_id(number: int) -> str:
    return f"{TS + number * 100 + 250}-{TS + number * 100}-0"


class QueryHooks:
    """Runs a callback before or after the query of a backfill."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.before: Callable[[], Awaitable[Any]] | None = None
        self.after: Callable[[], Awaitable[Any]] | None = None
        query_page = FromMongoDB.page

        async def hooked(history: FromMongoDB, *arguments: Any) -> Any:
            before, self.before = self.before, None
            if before is not None:
                await before()
            found = await query_page(history, *arguments)
            after, self.after = self.after, None
            if after is not None:
                await after()
            return found

        monkeypatch.setattr(FromMongoDB, "page", hooked)
