"""PERSISTER → DEAD LETTERS: what cannot be stored, with its reason, confirmed before the original is settled."""

from broker.headers import (
    ERROR_HEADER,
    EXCHANGE_HEADER,
    FIRST_SEEN_HEADER,
    REASON_HEADER,
    REPLAYS_HEADER,
    SCHEMA_HEADER,
    SERVICE_HEADER,
)
from broker.interface import Publisher
from broker.message import Header, Message
from broker.topology import DEAD_EXCHANGE, READINGS_EXCHANGE, Exchange
from persister.batch import DeadLetter
from runtime.times import now_ms, rfc3339

SERVICE = "persister"
MAX_ERROR_CHARS = 500
KEPT = (SCHEMA_HEADER, REPLAYS_HEADER, FIRST_SEEN_HEADER)


class ToDeadLetters:
    """Publishes dead letters."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def bury(self, letter: DeadLetter, origin: Message, source: Exchange = READINGS_EXCHANGE) -> None:
        """Return when the letter is confirmed; BrokerError in every other case.

        What the message said of itself stays: its schema, how often it was replayed, and when it was first a letter.
        """
        headers: dict[str, Header] = {
            FIRST_SEEN_HEADER: rfc3339(now_ms()),
            **{name: origin.headers[name] for name in KEPT if name in origin.headers},
            REASON_HEADER: letter.reason,
            ERROR_HEADER: letter.error[:MAX_ERROR_CHARS],
            SERVICE_HEADER: SERVICE,
        }
        if source is not READINGS_EXCHANGE:
            headers[EXCHANGE_HEADER] = source.name
        await self._publisher.publish(Message(letter.body, headers), DEAD_EXCHANGE)
