"""What a device needs to reach its server. `device.server` goes over the network; a simulation does not."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

OnAck = Callable[[int, Any], None]
"""Gets the number of an event and its acknowledgement, parsed."""
OnEvent = Callable[[str, Any], Awaitable[Any]]
"""Gets an event of the server, its name and payload; what it returns is the acknowledgement, if one is wanted."""


class Connection(Protocol):
    """One connection, from its opening to its loss; `lost` is set at its end, and it does not come back."""

    lost: asyncio.Event

    async def open(self, url: str, auth: dict[str, Any]) -> None:
        """Connect; raises NotNow, or DeviceRefused. Close it in any case."""

    def next_number(self) -> int:
        """Return the number that the acknowledgement of the next event will have."""

    async def emit(self, number: int, event: str, payload: str) -> None:
        """Send an event whose payload is JSON, under its number."""

    async def request(self, event: str, payload: dict[str, Any], timeout_s: float) -> Any:
        """Send an event and return its acknowledgement; raises TimeoutError, or NotNow if the connection is lost."""

    async def close(self) -> None:
        """Close it within bounded time, whatever its state."""


class Transport(Protocol):
    """The transport to one server; every call raises NotNow if the server does not do what it is asked to."""

    def connection(self, on_ack: OnAck, on_event: OnEvent) -> Connection:
        """Return a connection that is not open yet."""

    async def renewed(self, device: str, token: str) -> str:
        """Return a new token of this device."""

    async def stored(self, question: dict[str, Any], token: str) -> Any:
        """Return which of these readings are stored; None where the server has no such call."""

    async def close(self) -> None:
        """Close what is open."""
