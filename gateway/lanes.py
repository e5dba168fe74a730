"""EVENT HANDLER → LANES: live readings by one queue, readings that are late by their own clock by another.

A device that returns after an hour sends an hour at once. On a lane of its own that hour waits for itself: what is
measured now is published and stored as on a quiet day, and persisters write the backfill in between
(persister/lanes.py, docs/decisions/0027). A reading is late when its `ts` is older than BACKFILL_AFTER_SECONDS.

An event with both kinds is acknowledged after both confirms. Where one lane is full nothing of it is promised; what the
other lane has taken by then ends as duplicates of the key.
"""

import time

from broker.interface import BrokerError, BrokerRefused
from gateway.metrics import GatewayMetrics
from gateway.to_broker import Busy, JoinedOutcome, OnOutcome, ToBroker
from readings.document import document_ts_ms
from runtime.logs import logger

log = logger("gateway.lanes")

# Messages of late readings that are unconfirmed at once. A confirm acknowledges a message's events, and each of their
# devices sends the next: with more slots, more of these would be in front of a live event at once.
BACKFILL_SLOTS = 1
# How long late readings travel with the live ones after the broker has refused them: with the rights of an earlier
# release a gateway may not publish by the backfill lane.
REFUSED_FOR_S = 60.0


class Lanes:
    """Publishes the documents of every session by the lanes that they belong to."""

    def __init__(self, live: ToBroker, backfill: ToBroker | None, metrics: GatewayMetrics) -> None:
        """Publish by these lanes; without `backfill` everything is live."""
        self._live = live
        self._backfill = backfill
        self._backfilled = metrics.backfilled
        self._refused_until = 0.0
        both = [lane for lane in (live, backfill) if lane is not None]
        metrics.waiting_bytes.set_function(lambda: sum(lane.waiting_bytes for lane in both))

    def submit(
        self,
        documents: list[bytes],
        on_outcome: OnOutcome,
        *,
        receipts: bool = False,
        late_before_ms: int | None = None,
    ) -> None:
        """Queue documents; `on_outcome` is called once, later, with the outcome of all. Busy: none are queued.

        `late_before_ms`: in milliseconds since 1970, if some may be earlier and so late. `receipts`: their device
        gets a receipt when they are stored.
        """
        backfill = self._backfill
        if late_before_ms is None or backfill is None or time.monotonic() < self._refused_until:
            self._live.submit(documents, on_outcome, receipts=receipts)
            return
        live: list[bytes] = []
        late: list[bytes] = []
        for document in documents:
            (late if document_ts_ms(document) < late_before_ms else live).append(document)
        if not late:
            self._live.submit(live, on_outcome, receipts=receipts)
        elif not live:
            backfill.submit(late, self._watched(late, on_outcome), receipts=receipts)
        elif self._live.has_room(live) and backfill.has_room(late):
            joined = JoinedOutcome(2, on_outcome)
            self._live.submit(live, joined, receipts=receipts)
            backfill.submit(late, self._watched(late, joined), receipts=receipts)
        else:
            raise Busy

    def _watched(self, late: list[bytes], on_outcome: OnOutcome) -> OnOutcome:
        """Return `on_outcome`, preceded by what this class learns from the outcome of late documents."""
        count = len(late)

        def on_backfill_outcome(failure: BrokerError | None) -> None:
            if failure is None:
                self._backfilled.inc(count)
            elif isinstance(failure, BrokerRefused) and time.monotonic() >= self._refused_until:
                self._refused_until = time.monotonic() + REFUSED_FOR_S
                log.warning("Late readings travel with the live ones for a minute.", error=str(failure))
            on_outcome(failure)

        return on_backfill_outcome
