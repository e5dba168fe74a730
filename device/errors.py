"""What the library raises."""

# The longest wait that a server can ask for.
MAX_RETRY_AFTER_S = 300.0


class DeviceRefused(Exception):
    """The server refuses this device for good; `code` is the protocol's, as `revoked`, `message` the server's words."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class BufferFailed(OSError):
    """The file cannot be read or written, as when its disk is full: the reading was not taken."""


class BufferInUse(BufferFailed):
    """Another device, in this process or another, has this file open."""


class NotNow(Exception):
    """No connection, or a temporary refusal; `retry_after_s` is the wait that the server asked for, or 0."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def retry_after_s(header: str | None) -> float:
    """Return the seconds of a `Retry-After`, up to 300; 0 if there is none, or if it is a date."""
    return min(float(header), MAX_RETRY_AFTER_S) if header is not None and header.isdecimal() else 0.0
