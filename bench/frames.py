"""A client's WebSocket frames, written and read with minimal work (RFC 6455)."""

import struct
from collections.abc import Iterator

TEXT, CLOSE, PING = 0x81, 0x88, 0x89
# A client must mask; a key of zeros leaves the bytes unchanged. aiohttp unmasks anyway; the peers' `ws` detects that
# there is nothing to do.
_KEY = bytes(4)
_UPGRADE = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
    "Host: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def upgrade(port: int) -> bytes:
    """Return the request that opens a Socket.IO WebSocket."""
    return _UPGRADE.format(port=port).encode()


def text_frame(payload: bytes) -> bytes:
    """Return one masked text frame."""
    size = len(payload)
    if size < 126:
        head = bytes((TEXT, 0x80 | size))
    elif size < 65536:
        head = struct.pack(">BBH", TEXT, 0xFE, size)
    else:
        head = struct.pack(">BBQ", TEXT, 0xFF, size)
    return head + _KEY + payload


def server_frames(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the first byte, the payload and the end offset of each complete unmasked frame in `data`."""
    at, end = 0, len(data)
    while end - at >= 2:
        size, start = data[at + 1], at + 2
        if size == 126:
            if end - at < 4:
                return
            size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
        elif size == 127:
            if end - at < 10:
                return
            size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
        if start + size > end:
            return
        yield data[at], data[start : start + size], start + size
        at = start + size
