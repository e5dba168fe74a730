"""The persister's spans: one for each traced message, recorded once its batch is settled."""

from persister.batch import Batch, Outcome
from runtime.tracing import CONTEXT_HEADER, Tracing


def record_batch(tracing: Tracing, batch: Batch, *, began_ns: int, stored_ns: int, settled_ns: int) -> None:
    """Add to each message's trace when its batch was taken, stored and settled, in nanoseconds since 1970."""
    for batched, documents, outcomes in batch.results():
        message = batched.delivery.message
        if CONTEXT_HEADER not in message.headers:
            continue
        counts = {f"tidegate.{outcome.value}": outcomes.count(outcome) for outcome in Outcome if outcome in outcomes}
        process = tracing.begin(
            "tidegate.readings process",
            "CONSUMER",
            {
                "messaging.system": "rabbitmq",
                "messaging.operation.type": "process",
                "messaging.destination.name": "tidegate.readings",
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
