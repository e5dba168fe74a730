"""The persister: its real worker, batches, acknowledgements, retries and requeues, between the broker and the model."""

import asyncio
from functools import cache, partial
from random import Random
from typing import Any, cast

from prometheus_client import CollectorRegistry

from broker.interface import Broker, Consumer
from persister.dead_letters import ToDeadLetters
from persister.known_series import KnownSeries
from persister.lanes import Lane, lanes_of
from persister.maintenance.deleted_owners import DeletedOwners
from persister.metrics import PersisterMetrics
from persister.persister import Persister
from persister.requeues import Requeues
from persister.retry import Retrier
from persister.to_live import ToLive
from persister.to_mongodb import ToMongoDB
from persister.to_receipts import ToReceipts
from persister.worker import Worker
from tests.simulation.broker import BrokerServer
from tests.simulation.loop import Process
from tests.simulation.mongodb import Server
from tests.simulation.to_broker import BrokerLink
from tests.simulation.to_mongodb import Client

STUCK_AFTER_S = 60.0


@cache
def _metrics() -> PersisterMetrics:
    return PersisterMetrics(CollectorRegistry())


class PersisterProgram:
    """One persister, through all its restarts."""

    def __init__(self, name: str, broker: BrokerServer, mongodb: Server, random: Random) -> None:
        self.name = name
        self._broker = broker
        self._mongodb = mongodb
        self._stop = asyncio.Event()
        self._sealing = random.random() < 0.7
        self._options: dict[str, Any] = {
            "batch_readings": random.choice((1, 4, 4000)),
            "linger_ms": random.choice((0, 5, 50)),
            "prefetch": random.choice((2, 8, 64)),
            "writes_in_flight": random.choice((1, 2, 3)),
        }
        self._hold_s = random.choice((1.5, 5.0, 900.0))

    def start(self, process: Process) -> "asyncio.Task[None]":
        """Run in a process."""
        self._stop = asyncio.Event()
        return process.spawn(self._run(process, self._stop))

    def stop(self) -> None:
        """Let it finish what it has begun, and end."""
        self._stop.set()

    def killed(self) -> None:
        """Forget nothing: what a persister keeps is with the broker and MongoDB."""

    async def _run(self, process: Process, stop: asyncio.Event) -> None:
        metrics, link = _metrics(), BrokerLink(self._broker, process)
        store = ToMongoDB(Client(self._mongodb), "tidegate", clustered=False, sealing=self._sealing)
        known, requeues = KnownSeries(1000), Requeues(store.database)
        retrier = Retrier(stop, metrics, hold_s=self._hold_s)
        async with link.publisher() as publisher, ToReceipts(link).broadcasting() as receipts:

            def make(consumer: Consumer, lane: Lane) -> Persister:
                return Persister(
                    consumer,
                    lane,
                    store,
                    ToDeadLetters(publisher),
                    ToLive(link),
                    receipts,
                    retrier=retrier,
                    known=known,
                    deleted=DeletedOwners(known),
                    requeues=requeues,
                    metrics=metrics,
                    **self._options,
                )

            async with asyncio.TaskGroup() as tasks:
                for lane in lanes_of(metrics):
                    worker = Worker(
                        cast("Broker", link),
                        partial(make, lane=lane),
                        lane,
                        inspector=link,
                        requeues=requeues,
                        retrier=retrier,
                        prefetch=self._options["prefetch"],
                        stuck_after_s=STUCK_AFTER_S,
                    )
                    tasks.create_task(worker.run(stop))
