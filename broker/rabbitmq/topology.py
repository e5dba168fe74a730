"""Declares exchanges, queues and bindings on RabbitMQ, and waits until new queues would survive a crash.

RabbitMQ 3.10.8 registers a quorum queue on disk within a second of its declaration; a node killed before that comes
back without the queue and without the messages confirmed in it (docs/decisions/0001). So a process that declares a new
queue waits, and only then declares a marker, `tidegate.declared`; a process that does not find the marker waits too,
even if the queues exist.

Each user probes passively for the names it needs and declares only if one is missing. Since RabbitMQ 4.3 a probe needs
some permission on that very name, whether it exists or not, so a refused probe means only "may not probe"; a missing
permission is reported by the operation that needs it. `ensure_publishable` says what publishers do without an answer,
and why nothing is confirmed in a queue that a crash would delete.
"""

import asyncio
from enum import Enum, auto

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.exceptions import ChannelAccessRefused

from broker.interface import BrokerRefused
from broker.topology import DECLARED_EXCHANGE, FANOUTS, Exchange, Queue

# Queues are registered once a second: lost when killed after 0.6 s, never after 1 s or more.
DURABLE_AFTER_S = 1.5


class ProbeResult(Enum):
    """The broker's answer about one name."""

    FOUND = auto()
    MISSING = auto()
    FORBIDDEN = auto()


class NameProbe:
    """Probes whether names exist. A refused probe is not repeated, because the broker logs each one as an error."""

    def __init__(self) -> None:
        self._refused: set[Exchange | str] = set()

    async def probe(self, connection: AbstractConnection, target: Exchange | Queue) -> ProbeResult:
        """Probe for one name, on a channel of its own: the broker closes the channel unless the name is found."""
        name = target if isinstance(target, Exchange) else target.name
        if name in self._refused:
            return ProbeResult.FORBIDDEN
        channel = await connection.channel()
        try:
            if isinstance(target, Exchange):
                await channel.get_exchange(target.name, ensure=True)
            else:
                await channel.get_queue(target.name, ensure=True)
        except ChannelNotFoundEntity:
            return ProbeResult.MISSING
        except ChannelAccessRefused:
            self._refused.add(name)
            return ProbeResult.FORBIDDEN
        await channel.close()
        return ProbeResult.FOUND


async def declare_all(connection: AbstractConnection, queues: tuple[Queue, ...], *, durable_after_s: float) -> None:
    """Declare everything, and return when a publish into any queue may be confirmed."""
    probe = NameProbe()
    durable = await probe.probe(connection, DECLARED_EXCHANGE) is ProbeResult.FOUND
    for queue in queues:
        durable = durable and await probe.probe(connection, queue) is ProbeResult.FOUND
    await _declare(connection, queues, durable_after_s=None if durable else durable_after_s)


async def ensure_publishable(
    connection: AbstractConnection,
    queues: tuple[Queue, ...],
    targets: tuple[Queue, ...],
    probe: NameProbe,
    *,
    durable_after_s: float,
) -> None:
    """Return when a publish into the targets' exchanges may be confirmed; BrokerRefused when another user must declare.

    Nothing may be confirmed in a queue that is younger than a second and so may not be registered. What each result
    proves:
    - marker found: its declarer has waited for every queue;
    - marker missing: nobody has waited yet, so this user declares and waits, or publishes nothing;
    - marker forbidden, exchange found: the exchange is declared after its queue, so both are at least as old as the
      result; this user waits from then on, at each connection;
    - exchange forbidden: the user has no permission on it, and the broker refuses every publish into it.
    """
    marker = await probe.probe(connection, DECLARED_EXCHANGE)
    results = [marker, *[await probe.probe(connection, queue.exchange) for queue in targets]]
    if marker is ProbeResult.FORBIDDEN:
        results += [await probe.probe(connection, queue) for queue in targets]
    if ProbeResult.MISSING in results:
        await _declare(connection, queues, durable_after_s=durable_after_s)
    elif marker is ProbeResult.FORBIDDEN and ProbeResult.FOUND in results:
        await asyncio.sleep(durable_after_s)


async def ensure_queue(
    connection: AbstractConnection, queues: tuple[Queue, ...], queue: Queue, probe: NameProbe
) -> None:
    """Declare everything if this queue is missing. A consumer promises nothing, so there is no wait."""
    if await probe.probe(connection, queue) is ProbeResult.MISSING:
        await _declare(connection, queues, durable_after_s=None)


async def ensure_exchange(connection: AbstractConnection, exchange: Exchange, probe: NameProbe) -> None:
    """Declare an exchange if it is missing; BrokerRefused when this user may not."""
    if await probe.probe(connection, exchange) is not ProbeResult.MISSING:
        return
    channel = await connection.channel()
    try:
        await channel.declare_exchange(exchange.name, exchange.kind, durable=True)
    except ChannelAccessRefused as error:
        raise _not_declared(error) from error
    await channel.close()


async def _declare(connection: AbstractConnection, queues: tuple[Queue, ...], *, durable_after_s: float | None) -> None:
    """Declare everything; with `durable_after_s`, wait that long and then declare the marker."""
    channel = await connection.channel()
    try:
        for fanout in FANOUTS:
            await channel.declare_exchange(fanout.name, fanout.kind, durable=True)
        for queue in queues:
            await _declare_queue(channel, queue)
    except ChannelAccessRefused as error:
        raise _not_declared(error) from error
    if durable_after_s is not None:
        await asyncio.sleep(durable_after_s)
        try:
            await channel.declare_exchange(DECLARED_EXCHANGE.name, DECLARED_EXCHANGE.kind, durable=True)
        except ChannelAccessRefused:  # this user has waited all the same; others will wait, too
            return
    await channel.close()


async def _declare_queue(channel: AbstractChannel, queue: Queue) -> None:
    # The queue before its exchange: an exchange that is found proves that the queue is at least as old.
    declared = await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
    exchange = await channel.declare_exchange(queue.exchange.name, queue.exchange.kind, durable=True)
    await declared.bind(exchange, queue.binding)


def _not_declared(error: ChannelAccessRefused) -> BrokerRefused:
    return BrokerRefused(
        f"not declared yet, and this user may not declare; run `python -m broker declare` as one who may: {error}"
    )
