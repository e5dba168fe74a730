"""A command, what its sender gives, and what its device acknowledges."""

from typing import Literal

import msgspec

from broker.commands import Reply

Status = Literal["pending", "delivered", "done", "failed", "expired"]


class Command(msgspec.Struct, frozen=True):
    """A command. Times are milliseconds since 1970; `payload` and `result` are JSON."""

    id: str
    owner_id: str
    device_id: str
    name: str
    payload: str
    timeout_ms: int
    kept: bool
    status: Status
    created_at_ms: int
    expires_at_ms: int
    delivered_at_ms: int | None
    finished_at_ms: int | None
    deliveries: int
    result: str | None
    detail: str | None


class CommandPage(msgspec.Struct, frozen=True):
    """A page of a list, the newest first. `next_cursor` requests the next page; None: this is the last one."""

    items: list[Command]
    next_cursor: str | None


class NewCommand(msgspec.Struct, frozen=True):
    """What a user sends: `keep_ms` of a command that is kept, None of one that is waited for."""

    name: str
    payload: str
    timeout_ms: int
    keep_ms: int | None = None


class Acknowledgement(msgspec.Struct, frozen=True):
    """What a device acknowledged. `result` is its JSON, None if it gave none."""

    status: Literal["done", "failed"]
    result: str | None
    detail: str

    @classmethod
    def of(cls, reply: Reply) -> "Acknowledgement | None":
        """Return the acknowledgement in a reply; None if it has none."""
        if reply.outcome not in ("done", "failed"):
            return None
        return cls(reply.outcome, bytes(reply.result).decode() or None, reply.detail)
