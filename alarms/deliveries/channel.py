"""A way in which notifications are sent: one for each kind of delivery."""

from typing import Protocol

from alarms.deliveries.store import Delivery


class NotDeliveredError(Exception):
    """A notification was not delivered. The text is short and fixed, and tells nothing of what was answered."""

    def __init__(self, status: str, *, is_final: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(status)
        self.status = status
        # Another attempt would fare no better.
        self.is_final = is_final
        # The receiver asks to be left alone for so long.
        self.retry_after_s = retry_after_s


class Channel(Protocol):
    """Sends notifications of one kind."""

    async def send(self, delivery: Delivery, sealed: tuple[str, ...]) -> str:
        """Send one; return the receiver's status, or raise NotDeliveredError. `sealed`: secrets that sign it now."""
        ...
