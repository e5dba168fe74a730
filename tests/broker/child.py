"""A process that tests kill: `python -m tests.broker.child publish|consume URL` prints each step."""

import asyncio
import sys

from broker.connect import open_broker
from broker.interface import Broker
from broker.message import Message
from broker.topology import READINGS, READINGS_EXCHANGE
from runtime.logs import configure_logs

PUBLISHERS = 8


async def publish(broker: Broker) -> None:
    """Publish without end, and print each message's id once it is confirmed."""
    async with broker.publisher() as publisher, asyncio.TaskGroup() as tasks:

        async def one_after_the_other() -> None:
            while True:
                message = Message(b"body of a message")
                await publisher.publish(message, READINGS_EXCHANGE)
                sys.stdout.write(message.message_id + "\n")
                sys.stdout.flush()

        for _ in range(PUBLISHERS):
            tasks.create_task(one_after_the_other())


async def consume(broker: Broker) -> None:
    """Take three messages, print their ids, and settle none."""
    async with broker.consumer(READINGS, prefetch=3) as consumer:
        for _ in range(3):
            delivery = await consumer.get()
            sys.stdout.write(delivery.message.message_id + "\n")
            sys.stdout.flush()
        await asyncio.Event().wait()


async def main(what: str, url: str) -> None:
    async with open_broker(url) as broker:
        await {"publish": publish, "consume": consume}[what](broker)


if __name__ == "__main__":
    configure_logs("error", "json")
    asyncio.run(main(sys.argv[1], sys.argv[2]))
