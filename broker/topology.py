"""Names and arguments of every exchange and queue: the one place that both brokers take them from.

Arguments of a queue can never be changed later; what an operator may want to tune is a policy, not an argument.
"""

from dataclasses import dataclass, field
from typing import Literal

GIB = 1024**3
# Crashes and lost connections count as deliveries, and good readings must not die of them: the persister judges itself.
NO_DELIVERY_LIMIT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Exchange:
    """Where messages are published to, and the routing key that they carry."""

    name: str
    kind: Literal["topic", "fanout"]
    routing_key: str
    content_type: str = "application/bson"


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue, the exchange that feeds it, and the queue that takes what is rejected."""

    name: str
    exchange: Exchange
    binding: str
    max_bytes: int = GIB
    dead: "Queue | None" = None
    # For tests and small machines: a bound of another size. Both sides of a queue must agree on it.
    arguments: dict[str, str | int] = field(init=False)

    def __post_init__(self) -> None:
        arguments: dict[str, str | int] = {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-max-length-bytes": self.max_bytes,
            "x-delivery-limit": NO_DELIVERY_LIMIT,
        }
        if self.dead is not None:
            arguments["x-dead-letter-exchange"] = self.dead.exchange.name
            arguments["x-dead-letter-routing-key"] = self.dead.exchange.routing_key
            arguments["x-dead-letter-strategy"] = "at-least-once"
        object.__setattr__(self, "arguments", arguments)


READINGS_EXCHANGE = Exchange("tidegate.readings", "topic", "readings.v1")
DEAD_EXCHANGE = Exchange("tidegate.dead", "fanout", "readings.dead")
OWNERS_EXCHANGE = Exchange("tidegate.owners", "fanout", "owners.deleted")

# What nobody keeps: transient, unconfirmed, never bound to a queue that lasts. Each listener has a queue of its own.
LIVE_EXCHANGE = Exchange("tidegate.live", "fanout", "live.v1")
PRESENCE_EXCHANGE = Exchange("tidegate.presence", "fanout", "presence.v1", "application/json")
FANOUTS = (LIVE_EXCHANGE, PRESENCE_EXCHANGE)

# Declared last, once every queue is known to outlive a crash of the node: whoever finds it need not wait for that.
SETTLED_EXCHANGE = Exchange("tidegate.declared", "fanout", "declared")

DEAD_LETTERS = Queue("tidegate.readings.dead", DEAD_EXCHANGE, "#")
# Nothing else is ever bound to the readings' exchange: a confirm proves storage only while this queue is the only one.
READINGS = Queue("tidegate.readings", READINGS_EXCHANGE, "readings.*", dead=DEAD_LETTERS)
DELETED_OWNERS = Queue("tidegate.owners.deleted", OWNERS_EXCHANGE, "#")

QUEUES = (DEAD_LETTERS, READINGS, DELETED_OWNERS)
