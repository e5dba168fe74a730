"""Which publishes a confirm resolves."""

import asyncio
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest

from broker.interface import QueueFull
from broker.rabbitmq.publisher import _Confirms


def waiting(*tags: int) -> tuple[_Confirms, "OrderedDict[int, asyncio.Future[Any]]"]:
    """Return what resolves the publishes with these tags, and the table of them."""
    loop = asyncio.get_running_loop()
    table = OrderedDict((tag, loop.create_future()) for tag in tags)
    channel: Any = SimpleNamespace(confirmations=table)
    return _Confirms(channel), table


async def test_one_confirm_resolves_one_publish_in_whatever_order_they_come() -> None:
    confirms, table = waiting(1, 2, 3)
    first, second, third = table.values()
    confirms.on_confirm(2, multiple=False, accepted=True)
    assert [one.done() for one in (first, second, third)] == [False, True, False]
    confirms.on_confirm(3, multiple=True, accepted=True)
    assert [one.done() for one in (first, second, third)] == [True, True, True]
    assert not table


async def test_a_refusal_of_several_fails_each_of_them_and_none_behind() -> None:
    confirms, table = waiting(1, 2, 3)
    first, second, third = table.values()
    confirms.on_confirm(2, multiple=True, accepted=False)
    for refused in (first, second):
        with pytest.raises(QueueFull):
            await refused
    assert not third.done()
    assert list(table) == [3]


async def test_a_confirm_that_nobody_awaits_any_more_is_forgotten() -> None:
    confirms, table = waiting(1, 2)
    table[1].cancel()
    confirms.on_confirm(1, multiple=False, accepted=False)
    confirms.on_confirm(1, multiple=False, accepted=True)
    confirms.on_confirm(9, multiple=False, accepted=True)
    assert list(table) == [2]
