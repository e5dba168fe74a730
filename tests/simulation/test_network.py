"""Simulated connections: what a process sends before it closes one in order still arrives."""

import asyncio
from random import Random
from typing import Any

import pytest

from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import End, Line, Network


@pytest.mark.parametrize("seed", range(10))
def test_a_connection_that_is_closed_in_order_delivers_what_was_sent_before(seed: int) -> None:
    arrived: list[Any] = []
    loop = SimulatedLoop(Random(seed), shuffles=True)

    async def run() -> None:
        near = End(Process("near"), arrived.append, lambda: arrived.append("near lost"))
        far = End(Process("far"), arrived.append, lambda: arrived.append("far lost"))
        line = Line(Network(Random(seed)), near, far)
        for number in range(5):
            line.to_far(number)
        line.close()
        await asyncio.sleep(10)
        assert not line.is_open

    try:
        loop.run_until_complete(run())
    finally:
        loop.forget()
    assert arrived == [0, 1, 2, 3, 4, "far lost"]
