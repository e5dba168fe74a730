"""PERSISTER → DEAD LETTERS: what cannot be stored, with its reason, confirmed before the original is settled."""

from datetime import UTC, datetime

from broker.interface import Publisher
from broker.message import SCHEMA, SCHEMA_HEADER, Header, Message
from broker.topology import DEAD_EXCHANGE
from persister.batch import DeadLetter

SERVICE = "persister"
MAX_ERROR_CHARS = 500


class ToDeadLetters:
    """Publishes dead letters."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def bury(self, letter: DeadLetter) -> None:
        """Return when the letter is confirmed; BrokerError in every other case."""
        headers: dict[str, Header] = {
            "x-reason": letter.reason,
            "x-error": letter.error[:MAX_ERROR_CHARS],
            "x-service": SERVICE,
            "x-first-seen": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if letter.readable:
            headers[SCHEMA_HEADER] = SCHEMA
        await self._publisher.publish(Message(letter.body, headers), DEAD_EXCHANGE)
