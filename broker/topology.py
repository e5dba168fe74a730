"""Names and arguments of every exchange and queue, for both brokers.

The arguments of a queue can never be changed later, so anything an operator may want to tune belongs in a policy.
"""

from dataclasses import dataclass, field
from typing import Literal

GIB = 1024**3
# Crashes and lost connections count as deliveries and must not dead-letter good readings: the persister decides itself.
NO_DELIVERY_LIMIT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange, and the routing key of the messages published to it."""

    name: str
    kind: Literal["topic", "fanout"]
    routing_key: str
    content_type: str = "application/bson"


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue, the exchange bound to it, and its dead-letter queue."""

    name: str
    exchange: Exchange
    binding: str
    # Smaller in tests and on small machines. Publishers and consumers of a queue must use the same bound.
    max_bytes: int = GIB
    dead_letter_queue: "Queue | None" = None
    arguments: dict[str, str | int] = field(init=False)

    def __post_init__(self) -> None:
        arguments: dict[str, str | int] = {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-max-length-bytes": self.max_bytes,
            "x-delivery-limit": NO_DELIVERY_LIMIT,
        }
        if self.dead_letter_queue is not None:
            arguments["x-dead-letter-exchange"] = self.dead_letter_queue.exchange.name
            arguments["x-dead-letter-routing-key"] = self.dead_letter_queue.exchange.routing_key
            arguments["x-dead-letter-strategy"] = "at-least-once"
        object.__setattr__(self, "arguments", arguments)


READINGS_EXCHANGE = Exchange("tidegate.readings", "topic", "readings.v1")
BACKFILL_EXCHANGE = Exchange("tidegate.backfill", "topic", "readings.v1")
DEAD_EXCHANGE = Exchange("tidegate.dead", "fanout", "readings.dead")
OWNERS_EXCHANGE = Exchange("tidegate.owners", "fanout", "owners.deleted")

# What persisters stored of series that rules watch.
ALARMS_EXCHANGE = Exchange("tidegate.alarms", "fanout", "alarms.v1", "application/json")

# Transient and unconfirmed, never bound to a durable queue. Each subscriber has a queue of its own.
LIVE_EXCHANGE = Exchange("tidegate.live", "fanout", "live.v1")
PRESENCE_EXCHANGE = Exchange("tidegate.presence", "fanout", "presence.v1", "application/json")
COMMANDS_EXCHANGE = Exchange("tidegate.commands", "fanout", "commands.v1", "application/json")
REPLIES_EXCHANGE = Exchange("tidegate.replies", "fanout", "replies.v1", "application/json")
STORED_EXCHANGE = Exchange("tidegate.stored", "fanout", "stored.v1", "application/json")
ALARM_EVENTS_EXCHANGE = Exchange("tidegate.alarms.events", "fanout", "alarms.events.v1", "application/json")
FANOUTS = (
    ALARM_EVENTS_EXCHANGE,
    LIVE_EXCHANGE,
    PRESENCE_EXCHANGE,
    STORED_EXCHANGE,
    COMMANDS_EXCHANGE,
    REPLIES_EXCHANGE,
)

# Declared last, once every queue is sure to survive a crash of the node: a process that finds it need not wait.
DECLARED_EXCHANGE = Exchange("tidegate.declared", "fanout", "declared")

DEAD_LETTERS = Queue("tidegate.readings.dead", DEAD_EXCHANGE, "#")
# The only queue ever bound to the readings' exchange: with a second one, a confirm would no longer prove that a reading
# is in this queue.
READINGS = Queue("tidegate.readings", READINGS_EXCHANGE, "readings.*", dead_letter_queue=DEAD_LETTERS)
# Readings that are late by their own clock (gateway/lanes.py), so that live ones never wait behind an hour of them. The
# same holds for its exchange.
BACKFILL = Queue("tidegate.backfill", BACKFILL_EXCHANGE, "readings.*", dead_letter_queue=DEAD_LETTERS)
DELETED_OWNERS = Queue("tidegate.owners.deleted", OWNERS_EXCHANGE, "#")
ALARMS = Queue("tidegate.alarms", ALARMS_EXCHANGE, "#")

QUEUES = (DEAD_LETTERS, READINGS, BACKFILL, DELETED_OWNERS, ALARMS)
# Everything that persisters store.
LANES = (READINGS, BACKFILL)
