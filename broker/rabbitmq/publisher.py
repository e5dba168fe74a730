"""Publishes to RabbitMQ, each message confirmed; any number may be in flight at once.

The frames bypass the driver's publish call and go straight into its write queue, with a future under the delivery tag
in its table of confirmations. Confirms come past the driver too (`FrameSplitter`), until a message is returned: from
then on the driver resolves all of them. Only public attributes of the driver's channel are used, and one lock keeps
delivery tags in the order of the frames.
"""

import asyncio
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import DeliveryError, PublishError

from broker.failpoints import failpoint
from broker.interface import BrokerRefused, BrokerUnavailable, ConfirmLate, QueueFull, Unroutable
from broker.message import Message
from broker.rabbitmq.connection import DriverChannel, ReconnectingConnection, driver_channel, frame_max
from broker.rabbitmq.connector import take_over
from broker.rabbitmq.errors import translate_error, translating_errors
from broker.rabbitmq.frames import PERSISTENT, channel_frame, publish_frames
from broker.rabbitmq.topology import NameProbe, ensure_publishable
from broker.topology import Exchange, Queue

# A node that answers heartbeats and nothing else is left after this time, if there is another one. RabbitMQ 4.3.6 was
# like that for up to 67 s after a partition, on a connection to a node that was parted from the leader of its queue.
UNCONFIRMED_S = 8.0


class RabbitMQPublisher:
    """Publishes persistent, mandatory messages and awaits each confirm."""

    connection: ReconnectingConnection

    def __init__(
        self,
        queues: tuple[Queue, ...],
        exchanges: tuple[Exchange, ...],
        confirm_timeout_s: float,
        durable_after_s: float,
    ) -> None:
        self._queues = queues
        self._targets = tuple(queue for queue in queues if not exchanges or queue.exchange in exchanges)
        self._probe = NameProbe()
        self._timeout_s = confirm_timeout_s
        self._durable_after_s = durable_after_s
        self._exchanges = {queue.exchange.name for queue in self._targets}
        self._channel: DriverChannel | None = None
        self._sending = asyncio.Lock()
        # When the last message was sent, and the first one since the broker's last answer to any.
        self._sent_at = 0.0
        self._unanswered_since: float | None = None

    async def prepare(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        """Ensure that a publish over this new connection may be confirmed; see `ensure_publishable`."""
        await ensure_publishable(
            connection, self._queues, self._targets, self._probe, durable_after_s=self._durable_after_s
        )
        driver = await driver_channel(channel)
        driver.closing.add_done_callback(lambda closed: _fail_all(driver, closed))
        take_over(connection, driver.number, _Confirms(driver))
        self._channel, self._unanswered_since = driver, None

    async def publish(self, message: Message, exchange: Exchange) -> None:
        """Return when the broker has confirmed; BrokerError in every other case."""
        self.connection.check()
        channel = self._channel
        if channel is None or channel.is_closed:
            raise BrokerUnavailable("the connection was lost")
        if exchange.name not in self._exchanges:
            raise Unroutable(f"no queue is bound to {exchange.name}")
        frames = publish_frames(
            message, exchange, channel.number, frame_max(channel), delivery_mode=PERSISTENT, mandatory=True
        )
        with translating_errors():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._confirmed(channel, frames, message.message_id)
            except TimeoutError as error:
                self._leave_if_unanswered(channel)
                raise ConfirmLate(f"no confirm within {self._timeout_s:g} s") from error
            except PublishError as error:
                raise Unroutable(f"no queue takes {exchange.routing_key} from {exchange.name}") from error
            except (QueueFull, DeliveryError) as error:
                raise QueueFull(f"the queue behind {exchange.name} is full") from error

    async def _confirmed(self, channel: DriverChannel, frames: bytes, message_id: str) -> None:
        loop = asyncio.get_running_loop()
        async with self._sending:
            _check_open(channel)
            # Waits while the socket takes nothing, so that a blocked broker does not fill this process's memory.
            await channel.write_queue.put(channel_frame(frames, loop.create_future()))
            _check_open(channel)
            # No await since the put: the tag is the message's position among those written.
            channel.delivery_tag += 1
            confirm = channel.confirmations[channel.delivery_tag] = loop.create_future()
            channel.message_id_delivery_tag[message_id] = channel.delivery_tag
            self._sent()
        failpoint("gateway.mid_publish")
        try:
            await confirm
        finally:
            channel.message_id_delivery_tag.pop(message_id, None)
            if not confirm.cancelled():
                self._unanswered_since = None

    def _sent(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._unanswered_since is None or now - self._sent_at > UNCONFIRMED_S:
            self._unanswered_since = now
        self._sent_at = now

    def _leave_if_unanswered(self, channel: DriverChannel) -> None:
        since = self._unanswered_since
        if channel is not self._channel or since is None or not self.connection.has_another:
            return
        if asyncio.get_running_loop().time() - since > UNCONFIRMED_S:
            self.connection.reopen(f"nothing was confirmed for {UNCONFIRMED_S:g} s")

    async def check(self) -> None:
        """Raise BrokerUnavailable while there is no connection."""
        self.connection.check()


class _Confirms:
    """Resolves what is in a channel's table of confirmations."""

    def __init__(self, channel: DriverChannel) -> None:
        self._confirmations = channel.confirmations

    def on_delivery(self, tag: int, properties: bytes, body: bytes) -> None:
        """Do nothing: nothing is consumed here."""

    def on_cancelled(self) -> None:
        """Do nothing: nothing is consumed here."""

    def on_confirm(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        """Resolve the publish with this tag, or all up to it: they are in the order of their tags."""
        confirmations = self._confirmations
        while multiple and confirmations and (first := next(iter(confirmations))) < tag:
            _resolve(confirmations.pop(first), accepted=accepted)
        if (confirm := confirmations.pop(tag, None)) is not None:
            _resolve(confirm, accepted=accepted)


def _resolve(confirm: "asyncio.Future[Any]", *, accepted: bool) -> None:
    if confirm.done():  # its publish was cancelled, or has waited for too long
        return
    if accepted:
        confirm.set_result(None)
    else:
        confirm.set_exception(QueueFull("the broker refuses the message"))


def _check_open(channel: DriverChannel) -> None:
    if channel.is_closed:  # the future of a message sent now would never be resolved
        raise BrokerUnavailable("the connection was lost during the publish")


def _fail_all(channel: DriverChannel, closed: "asyncio.Future[object]") -> None:
    """Fail every publish on a closed channel, also the one that waits for room in the write queue."""
    error = None if closed.cancelled() else closed.exception()
    refused = None if error is None else translate_error(error)
    for confirm in channel.confirmations.values():
        if not confirm.done():
            if isinstance(refused, BrokerRefused):
                confirm.set_exception(BrokerRefused(str(refused)))
            else:
                confirm.set_exception(BrokerUnavailable("the connection was lost during the publish"))
    while not channel.write_queue.empty():
        channel.write_queue.get_nowait()
