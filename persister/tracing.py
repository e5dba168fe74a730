"""The persister's spans: one for each traced message, recorded once its batch is settled."""

import time

from persister.batch import Batch, Outcome
from runtime.tracing import CONTEXT_HEADER, Tracing


def record_batch(tracing: Tracing, batch: Batch, queue: str, *, began_ns: int, stored_ns: int) -> None:
    """Add to the trace of each message of `queue` when its batch was taken, stored and, just now, settled.

    Times are in nanoseconds since 1970.
    """
    settled_ns = time.time_ns()
    for batched, documents, outcomes in batch.results():
        message = batched.delivery.message
        if CONTEXT_HEADER not in message.headers:
            continue
        counts = {f"tidegate.{outcome.value}": outcomes.count(outcome) for outcome in Outcome if outcome in outcomes}
        process = tracing.begin(
            f"{queue} process",
            "CONSUMER",
            {
                "messaging.system": "rabbitmq",
                "messaging.operation.type": "process",
                "messaging.destination.name": queue,
                "messaging.message.id": message.message_id,
                "tidegate.readings": len(documents),
                **counts,
            },
            parent=message.headers,
            at_ns=began_ns,
        )
        if process.headers:
            insert = tracing.begin(
                "insert readings",
                "CLIENT",
                {
                    "db.system.name": "mongodb",
                    "db.collection.name": "readings",
                    "db.operation.name": "insert",
                    "db.operation.batch.size": len(batch.documents),
                },
                parent=process.headers,
                at_ns=began_ns,
            )
            insert.end(stored_ns)
        process.end(settled_ns)
