"""DEVICE → EVENT HANDLER, the fast path: readings go from the WebSocket frame to the decoder without task or future.

A frame that holds a `reading` or `readings` event of an open session is handled here, synchronously, as the network
delivers it; its acknowledgement is written by the callback of its confirm. Everything else takes the plain path through
python-socketio, which ends in the same `EventHandler`: a device sees no difference but time.
"""

from functools import partial
from typing import Final, Protocol

import msgspec

from gateway.ingest import ACCEPTED_ONE, Ack, EventHandler
from gateway.session import Session
from gateway.socket.events import reading_event
from gateway.socket.frames import text_frame

_encode: Final = msgspec.json.Encoder().encode
# The acknowledgement of most events, before and after its id. An id has at most 18 digits, so the frame is short.
_MAX_ID_DIGITS: Final = 18
_ACCEPTED_ONE_TAIL: Final = b"[%b]" % _encode(ACCEPTED_ONE)
_ACCEPTED_ONE_HEADS: Final = [
    text_frame(b"43" + bytes(digits) + _ACCEPTED_ONE_TAIL)[:4] for digits in range(_MAX_ID_DIGITS + 1)
]


class Writable(Protocol):
    """Writes WebSocket frames to one device."""

    def write(self, frame: bytes) -> None:
        """Send the frame with the others of this turn of the event loop."""


class FastPath:
    """Handles the frames with readings of every session."""

    def __init__(self, event_handler: EventHandler) -> None:
        self._event_handler = event_handler

    def handle(self, socket: Writable, session: Session, frame: bytes) -> bool:
        """Handle the frame's event and return True, or return False: the frame is for the plain path."""
        found = reading_event(frame)
        if found is None:
            return False
        ack_id, event = found
        self._event_handler.handle(session, event, partial(_write_ack, socket, ack_id) if ack_id else _discard_ack)
        return True


def _write_ack(socket: Writable, ack_id: bytes, ack: Ack) -> None:
    if ack is ACCEPTED_ONE:
        socket.write(_ACCEPTED_ONE_HEADS[len(ack_id)] + ack_id + _ACCEPTED_ONE_TAIL)
    else:
        socket.write(text_frame(b"43%b[%b]" % (ack_id, _encode(ack))))


def _discard_ack(_: Ack) -> None:
    """Drop the acknowledgement of an event that was sent without an id."""
