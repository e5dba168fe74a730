"""The bodies of the calls about commands."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from auth.commands.command import Command, CommandPage, Status
from auth.commands.sender import CommandOutcome
from auth.http.bodies import NAME, NAME_RULE
from broker.commands import MAX_PAYLOAD_BYTES
from database.ids import ID
from runtime.http.fields import Body
from runtime.http.wording import rule
from runtime.times import TimeText, rfc3339

MAX_TIMEOUT_MS = 30_000
MAX_KEEP_S = 30 * 86_400
# A result may have 16 KiB.
MAX_PAGE = 100

CommandName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=NAME,
        extra=NAME_RULE,
        examples=["set_rate"],
    ),
]
AnyJson = Annotated[
    Any, Meta(description=f"Any JSON value of at most {MAX_PAYLOAD_BYTES} bytes.", examples=[{"rate": 2}])
]


class CommandRequest(Body):
    """Body of `POST /devices/{id}/commands`. With `keepSeconds`, the command is kept until the device is connected."""

    name: CommandName
    payload: AnyJson = None
    timeout_ms: Annotated[int, Meta(ge=100, le=MAX_TIMEOUT_MS)] = 10_000
    keep_seconds: Annotated[int, Meta(ge=1, le=MAX_KEEP_S)] | UnsetType = UNSET


class CommandQuery(msgspec.Struct):
    """Query of `GET /devices/{id}/commands`; the cursor is the last id of the previous page."""

    cursor: Annotated[str, Meta(pattern=ID, extra=rule("a cursor from an earlier response"))] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = MAX_PAGE


class CommandAnswer(msgspec.Struct):
    """A device's acknowledgement: `result` of a command that is done, `detail` of one that failed."""

    id: str
    status: Literal["done", "failed"]
    result: Any | UnsetType = UNSET
    detail: str | UnsetType = UNSET

    @classmethod
    def of(cls, outcome: CommandOutcome) -> "CommandAnswer":
        """Return the response for an outcome."""
        given = outcome.acknowledgement
        if given.status == "done":
            return cls(outcome.id, "done", result=_json(given.result))
        return cls(outcome.id, "failed", detail=given.detail or UNSET)


class CommandKept(msgspec.Struct, rename="camel"):
    """A command that is delivered later."""

    id: str
    expires_at: TimeText
    status: Literal["pending"] = "pending"

    @classmethod
    def of(cls, command: Command) -> "CommandKept":
        """Return the response for a kept command."""
        return cls(command.id, rfc3339(command.expires_at_ms))


class CommandItem(msgspec.Struct, rename="camel"):
    """A command in a list. `deliveredAt`: when it was first sent to the device; `finishedAt`: when it acknowledged."""

    id: str
    name: str
    status: Status
    created_at: TimeText
    expires_at: TimeText
    delivered_at: TimeText | UnsetType = UNSET
    finished_at: TimeText | UnsetType = UNSET
    result: Any | UnsetType = UNSET
    detail: str | UnsetType = UNSET

    @classmethod
    def of(cls, command: Command) -> "CommandItem":
        """Return a command's item."""
        return cls(
            command.id,
            command.name,
            command.status,
            rfc3339(command.created_at_ms),
            rfc3339(command.expires_at_ms),
            delivered_at=UNSET if command.delivered_at_ms is None else rfc3339(command.delivered_at_ms),
            finished_at=UNSET if command.finished_at_ms is None else rfc3339(command.finished_at_ms),
            result=_json(command.result) if command.status == "done" else UNSET,
            detail=command.detail or UNSET,
        )


class CommandsAnswer(msgspec.Struct, rename="camel"):
    """A page of commands; without `nextCursor`, it is the last."""

    items: list[CommandItem]
    next_cursor: str | UnsetType = UNSET

    @classmethod
    def of(cls, page: CommandPage) -> "CommandsAnswer":
        """Return the response for a page."""
        items = [CommandItem.of(command) for command in page.items]
        return cls(items, UNSET if page.next_cursor is None else page.next_cursor)


def _json(text: str | None) -> Any:
    return None if text is None else msgspec.Raw(text.encode())
