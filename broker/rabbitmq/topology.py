"""Declares exchanges, queues and bindings on RabbitMQ, and waits until fresh queues would survive a crash.

RabbitMQ 3.10.8 registers a quorum queue on disk within a second of its declaration; a node killed before that comes
back without the queue and what was confirmed in it (docs/decisions/0001). So whoever declares a fresh queue waits, and
only then declares a marker, `tidegate.declared`; whoever finds no marker waits too, even if the queues are there.

Whoever uses something asks for that alone, passively, and declares only where something is missing. Since RabbitMQ 4.3
a question needs some right on that very name, whether it exists or not: a refused question means "may not ask", no
more; what is needed and not allowed is said by the operation itself. What publishers do without an answer, and why
nothing is confirmed in a queue that a crash would take, is in `ensure_publishable`.
"""

import asyncio
from enum import Enum, auto

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from aiormq.exceptions import ChannelAccessRefused

from broker.interface import BrokerRefused
from broker.topology import FANOUTS, SETTLED_EXCHANGE, Exchange, Queue

# The register is written once a second; lost at 0.6 s, never at 1 s and later.
SETTLE_S = 1.5


class Answer(Enum):
    """What a broker says of a name."""

    FOUND = auto()
    MISSING = auto()
    MAY_NOT_ASK = auto()


class Questions:
    """Asks whether names are there; what was refused once is not asked again, for the broker logs each as an error."""

    def __init__(self) -> None:
        self._refused: set[Exchange | str] = set()

    async def ask(self, connection: AbstractConnection, what: Exchange | Queue) -> Answer:
        """Ask for one name, on a channel of its own: a question that is answered with no costs its channel."""
        name = what if isinstance(what, Exchange) else what.name
        if name in self._refused:
            return Answer.MAY_NOT_ASK
        channel = await connection.channel()
        try:
            if isinstance(what, Exchange):
                await channel.get_exchange(what.name, ensure=True)
            else:
                await channel.get_queue(what.name, ensure=True)
        except ChannelNotFoundEntity:
            return Answer.MISSING
        except ChannelAccessRefused:
            self._refused.add(name)
            return Answer.MAY_NOT_ASK
        await channel.close()
        return Answer.FOUND


async def declare_all(connection: AbstractConnection, queues: tuple[Queue, ...], *, settle_s: float) -> None:
    """Declare everything, and return when a publish into any queue may be confirmed."""
    questions = Questions()
    settled = await questions.ask(connection, SETTLED_EXCHANGE) is Answer.FOUND
    for queue in queues:
        settled = settled and await questions.ask(connection, queue) is Answer.FOUND
    await _declare(connection, queues, settle_s=None if settled else settle_s)


async def ensure_publishable(
    connection: AbstractConnection,
    queues: tuple[Queue, ...],
    targets: tuple[Queue, ...],
    questions: Questions,
    *,
    settle_s: float,
) -> None:
    """Return when a publish into the targets' exchanges may be confirmed; BrokerRefused when that is for others to do.

    Nothing may be confirmed in a queue younger than the register's second. What each answer proves:
    - the marker is there: every queue was waited for by whoever declared the marker;
    - the marker is missing: nobody has waited yet, so this user declares and waits, or publishes nothing;
    - the marker may not be asked for, the exchange is there: it is declared after its queue, so both are at least as
      old as the answer, and are waited for from then on, at each connection;
    - the exchange may not be asked for: then no right on it is held, and the broker refuses every publish into it.
    """
    marker = await questions.ask(connection, SETTLED_EXCHANGE)
    answers = [marker, *[await questions.ask(connection, queue.exchange) for queue in targets]]
    if marker is Answer.MAY_NOT_ASK:
        answers += [await questions.ask(connection, queue) for queue in targets]
    if Answer.MISSING in answers:
        await _declare(connection, queues, settle_s=settle_s)
    elif marker is Answer.MAY_NOT_ASK and Answer.FOUND in answers:
        await asyncio.sleep(settle_s)


async def ensure_queue(
    connection: AbstractConnection, queues: tuple[Queue, ...], queue: Queue, questions: Questions
) -> None:
    """Declare everything where this queue is missing. Nothing is promised by consuming, so nothing is waited for."""
    if await questions.ask(connection, queue) is Answer.MISSING:
        await _declare(connection, queues, settle_s=None)


async def ensure_exchange(connection: AbstractConnection, exchange: Exchange, questions: Questions) -> None:
    """Declare an exchange where it is missing."""
    if await questions.ask(connection, exchange) is not Answer.MISSING:
        return
    channel = await connection.channel()
    try:
        await channel.declare_exchange(exchange.name, exchange.kind, durable=True)
    except ChannelAccessRefused as error:
        raise _not_declared(error) from error
    await channel.close()


async def _declare(connection: AbstractConnection, queues: tuple[Queue, ...], *, settle_s: float | None) -> None:
    """Declare everything; with `settle_s`, wait for so long and leave the marker."""
    channel = await connection.channel()
    try:
        for fanout in FANOUTS:
            await channel.declare_exchange(fanout.name, fanout.kind, durable=True)
        for queue in queues:
            await _declare_queue(channel, queue)
    except ChannelAccessRefused as error:
        raise _not_declared(error) from error
    if settle_s is not None:
        await asyncio.sleep(settle_s)
        try:
            await channel.declare_exchange(SETTLED_EXCHANGE.name, SETTLED_EXCHANGE.kind, durable=True)
        except ChannelAccessRefused:  # it was waited for all the same; others wait, too
            return
    await channel.close()


async def _declare_queue(channel: AbstractChannel, queue: Queue) -> None:
    # The queue before its exchange: whoever finds the exchange knows that the queue is no younger.
    declared = await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
    exchange = await channel.declare_exchange(queue.exchange.name, queue.exchange.kind, durable=True)
    await declared.bind(exchange, queue.binding)


def _not_declared(error: ChannelAccessRefused) -> BrokerRefused:
    return BrokerRefused(f"not declared yet, which `python -m broker declare` does, and this user may not: {error}")
