"""DEVICE → ANSWERER by the short way: readings go from the WebSocket frame to the decoder, with no task and no future.

A frame that holds a `reading` or `readings` event of an open session is taken here, synchronously, as the network
delivers it; its acknowledgement is written by the callback of its confirm. All else is left to python-socketio, the
plain path, which ends in the same `Answerer`: a device sees no difference but time.
"""

from functools import partial
from typing import Protocol

import msgspec

from gateway.ingest import ACCEPTED_ONE, Answer, Answerer
from gateway.session import Session
from gateway.socket.frames import text_frame
from gateway.socket.packets import hot_event

_encode = msgspec.json.Encoder().encode
_ACCEPTED_ONE = _encode(ACCEPTED_ONE)


class Writable(Protocol):
    """Takes WebSocket frames for one device."""

    def write(self, frame: bytes) -> None:
        """Send the frame with this turn's others."""


class FastLane:
    """Takes the hot frames of every session."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    def take(self, socket: Writable, session: Session, frame: bytes) -> bool:
        """Answer the frame's event, or return False: the frame is for the plain path."""
        found = hot_event(frame)
        if found is None:
            return False
        number, event = found
        self._answerer.answer(session, event, partial(_acknowledge, socket, number) if number else _nobody_asked)
        return True


def _acknowledge(socket: Writable, number: bytes, answer: Answer) -> None:
    text = _ACCEPTED_ONE if answer is ACCEPTED_ONE else _encode(answer)
    socket.write(text_frame(b"43%b[%b]" % (number, text)))


def _nobody_asked(_: Answer) -> None:
    """Stand for the acknowledgement of an event that was sent without an id."""
