"""A publisher that records a span for each publish and sends the trace context in the message's headers."""

from broker.interface import Publisher
from broker.message import Message
from broker.topology import Exchange
from runtime.tracing import Tracing


class TracedPublisher:
    """Wraps a publisher. Without tracing there is no wrapper, and so no cost."""

    def __init__(self, publisher: Publisher, tracing: Tracing) -> None:
        self._publisher = publisher
        self._tracing = tracing
        self.check = publisher.check

    async def publish(self, message: Message, exchange: Exchange) -> None:
        """Publish within a span of the message's trace, or of a new one."""
        attributes: dict[str, str | int] = {
            "messaging.system": "rabbitmq",
            "messaging.operation.type": "send",
            "messaging.destination.name": exchange.name,
            "messaging.message.body.size": len(message.body),
            "messaging.message.id": message.message_id,
        }
        span = self._tracing.begin(f"{exchange.name} publish", "PRODUCER", attributes, parent=message.headers)
        if span.headers:
            message = Message(message.body, {**message.headers, **span.headers}, message.message_id)
        failure: BaseException | None = None
        try:
            await self._publisher.publish(message, exchange)
        except BaseException as error:
            failure = error
            raise
        finally:
            span.end(error=failure)


def with_tracing(publisher: Publisher, tracing: Tracing | None) -> Publisher:
    """Return the publisher, wrapped if tracing is enabled."""
    return publisher if tracing is None else TracedPublisher(publisher, tracing)
