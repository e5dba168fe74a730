"""The messages that carry commands: from `auth` on `tidegate.commands`, and the outcomes back on `tidegate.replies`.

Both are transient fanouts: every gateway receives every command and handles those to its own sessions, every `auth`
receives every reply and handles those to its own commands. Losing a message loses no promise: `auth` reports a command
as done only after the device's explicit acknowledgement. docs/decisions/0026-commands.md has the reasons.
"""

from typing import Literal

import msgspec

from broker.presence import SessionKey

# Bounds of a command's payload and of its result, as JSON in UTF-8.
MAX_PAYLOAD_BYTES = 16 * 1024
MAX_RESULT_BYTES = 16 * 1024
MAX_DETAIL_CHARS = 1024

Outcome = Literal["sent", "done", "failed", "unanswered", "lost", "absent"]
"""What happened to a command at its gateway.

`sent`: written to the device's socket; another outcome follows. `done`, `failed`: the device's acknowledgement.
`unanswered`: its acknowledgement was empty, or did not come within the command's time. `lost`: the connection ended
first. `absent`: the gateway does not have the session, and has sent nothing.
"""


class _Order(msgspec.Struct, frozen=True, rename="camel", tag_field="type"):
    pass


class SendCommand(_Order, frozen=True, tag="command"):
    """A command to one session. `timeout_ms`: how long the gateway waits for the acknowledgement. `payload`: JSON."""

    id: str
    owner: str
    device: str
    session: SessionKey
    reply_to: str
    name: str
    payload: msgspec.Raw
    timeout_ms: int


class AnnounceSessions(_Order, frozen=True, tag="announce"):
    """Asks every gateway to broadcast all its sessions on `tidegate.presence` now, as `auth` does when it starts."""


class Reply(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The outcome of a command, to the `auth` instance `to`. `result`: the device's JSON, of an outcome `done`."""

    to: str
    id: str
    outcome: Outcome
    result: msgspec.Raw = msgspec.Raw()
    detail: str = ""


Order = SendCommand | AnnounceSessions
_encoder = msgspec.json.Encoder()
_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_replies = msgspec.json.Decoder(Reply)


def encode_order(order: Order) -> bytes:
    """Return a message to the gateways as JSON."""
    return _encoder.encode(order)


def decode_order(payload: bytes) -> Order:
    """Decode a message to the gateways; msgspec.DecodeError when it is malformed."""
    return _orders.decode(payload)


def encode_reply(reply: Reply) -> bytes:
    """Return a reply as JSON."""
    if not bytes(reply.result):  # an empty Raw is not JSON
        return _encoder.encode({"to": reply.to, "id": reply.id, "outcome": reply.outcome, "detail": reply.detail})
    return _encoder.encode(reply)


def decode_reply(payload: bytes) -> Reply:
    """Decode a reply; msgspec.DecodeError when it is malformed."""
    return _replies.decode(payload)
