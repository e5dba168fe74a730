"""Names of the message headers that Tidegate and RabbitMQ set.

Services that publish dead letters set the headers from `REASON_HEADER` to `FIRST_SEEN_HEADER`; the broker sets the
`x-first-death-*` and `x-death` headers when it dead-letters a message itself.
"""

SCHEMA_HEADER = "x-schema"
# Which documents a persister announces once they are stored, see broker/receipts.py.
RECEIPTS_HEADER = "x-receipts"

REASON_HEADER = "x-reason"
ERROR_HEADER = "x-error"
SERVICE_HEADER = "x-service"
FIRST_SEEN_HEADER = "x-first-seen"
# The exchange that a dead letter is replayed to, if it is not the readings'.
EXCHANGE_HEADER = "x-exchange"
# How often a dead letter was replayed; kept through every replay.
REPLAYS_HEADER = "x-replays"

# RabbitMQ's. `x-death` is a list of tables, newest first; Tidegate reads its time and count and keeps them as texts.
DEATH_HEADER = "x-death"
DEATH_REASON_HEADER = "x-first-death-reason"
DEATH_QUEUE_HEADER = "x-first-death-queue"
DEATH_TIME_HEADER = "x-first-death-time"
DEATH_COUNT_HEADER = "x-first-death-count"
DELIVERY_COUNT_HEADER = "x-delivery-count"
# Of RabbitMQ 4: grows with each look at a message. Published messages have none.
ACQUIRED_COUNT_HEADER = "x-acquired-count"

# Prefixes of the headers added on dead-lettering; stripped before a replay.
DEAD_LETTER_HEADERS = (
    REASON_HEADER,
    ERROR_HEADER,
    SERVICE_HEADER,
    FIRST_SEEN_HEADER,
    EXCHANGE_HEADER,
    DEATH_HEADER,
    "x-first-death-",
    "x-last-death-",
)
