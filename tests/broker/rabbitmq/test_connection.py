"""What a link makes of the driver's failures, and of those that meet its own end."""

import asyncio

import pytest

from broker.interface import BrokerUnavailable
from broker.rabbitmq.errors import translating_errors


async def test_a_failure_of_the_driver_is_that_the_broker_is_away() -> None:
    for failure in (ConnectionError("refused"), Exception("in the handshake"), asyncio.CancelledError()):
        with pytest.raises(BrokerUnavailable), translating_errors():
            raise failure


async def test_a_failure_in_the_moment_of_the_cancellation_does_not_keep_the_task() -> None:
    async def connects_for_ever() -> None:
        while True:
            try:
                with translating_errors():
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:  # as Python 3.11's wait_for does when the call has just failed
                        raise ConnectionError("refused") from None
            except BrokerUnavailable:
                await asyncio.sleep(0)

    task = asyncio.ensure_future(connects_for_ever())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait((task,))
    assert task.cancelled()
