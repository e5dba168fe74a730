"""WebSocket frames as a server sends them (RFC 6455, 5.2): unmasked, unfragmented, never compressed."""

import struct
from typing import Final

# Close codes of RFC 6455, 7.4.1, and of its registry at IANA (1013).
NORMAL = 1000
GOING_AWAY = 1001
UNSUPPORTED_DATA = 1003
INVALID_PAYLOAD = 1007
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013

_SHORT: Final = [bytes((0x81, length)) for length in range(126)]
_CLOSE: Final = 0x88
_PONG: Final = 0x8A


def text_frame(payload: bytes) -> bytes:
    """Return a text frame with a payload of UTF-8."""
    length = len(payload)
    if length < 126:
        return _SHORT[length] + payload
    if length < 65536:
        return struct.pack(">BBH", 0x81, 126, length) + payload
    return struct.pack(">BBQ", 0x81, 127, length) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame with its code and a reason of at most 123 bytes."""
    encoded = reason.encode()
    return struct.pack(">BBH", _CLOSE, 2 + len(encoded), code) + encoded


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping frame, with its payload (at most 125 bytes)."""
    return bytes((_PONG, len(payload))) + payload
