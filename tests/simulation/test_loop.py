"""The simulation's loop: virtual time, kills without cleanup, and orders that the seed draws."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from tests.simulation.clocks import BOOTED_S, EPOCH_S, simulated_clocks
from tests.simulation.loop import DeadlockError, Process, SimulatedLoop


def run_in(loop: SimulatedLoop, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        loop.run_until_complete(work())
    finally:
        loop.forget()


def test_time_passes_without_waiting_and_every_clock_shows_it() -> None:
    loop = SimulatedLoop(Random(1), shuffles=False)

    async def work() -> None:
        await asyncio.sleep(3600.0)
        assert loop.time() == 3600.0
        assert time.monotonic() == time.perf_counter() == BOOTED_S + 3600.0
        assert time.time() == EPOCH_S + 3600.0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await asyncio.Event().wait()

    began = time.monotonic()
    with simulated_clocks(loop, 1):
        run_in(loop, work)
    assert time.monotonic() - began < 60.0


def test_a_killed_process_runs_no_cleanup() -> None:
    loop = SimulatedLoop(Random(1), shuffles=False)
    seen: list[str] = []

    async def killed() -> None:
        try:
            await asyncio.sleep(1.0)
        finally:
            seen.append("cleanup")

    async def work() -> None:
        process, other = Process("killed"), Process("other")
        kept = [process.spawn(killed()), other.spawn(killed())]
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(10.0)
        assert [task.done() for task in kept] == [False, True]
        assert seen == ["cleanup"]

    run_in(loop, work)


def test_a_process_can_be_killed_before_each_of_its_steps() -> None:
    async def steps(reached: list[int]) -> None:
        for number in range(5):
            reached.append(number)
            await asyncio.sleep(0)

    found = set()
    for kill_at in range(2, 7):  # before the first one there is only a coroutine
        loop = SimulatedLoop(Random(kill_at), shuffles=True)
        reached: list[int] = []

        async def work(kill_at: int = kill_at, reached: list[int] = reached) -> None:
            process = Process("killed")
            process.kill_at = kill_at
            process.spawn(steps(reached))
            await asyncio.sleep(1.0)

        run_in(loop, work)
        found.add(len(reached))
    assert found == {1, 2, 3, 4, 5}


def order_of(seed: int, *, shuffles: bool) -> list[str]:
    loop, order = SimulatedLoop(Random(seed), shuffles=shuffles), list[str]()

    async def work() -> None:
        for name in ("a", "b"):
            process = Process(name)
            for number in range(3):
                loop.call_soon(order.append, f"{name}{number}", context=process.context)
        await asyncio.sleep(1.0)

    run_in(loop, work)
    return order


def test_processes_run_in_any_order_and_callbacks_of_one_in_theirs() -> None:
    orders = [order_of(seed, shuffles=False) for seed in range(20)]
    assert len({tuple(order) for order in orders}) > 5
    for order in orders:
        for name in ("a", "b"):
            assert [one for one in order if one[0] == name] == [f"{name}{number}" for number in range(3)]


def test_a_shuffling_loop_keeps_no_order_and_the_same_seed_keeps_the_same() -> None:
    orders = [order_of(seed, shuffles=True) for seed in range(20)]
    assert any([one for one in order if one[0] == "a"] != ["a0", "a1", "a2"] for order in orders)
    assert orders == [order_of(seed, shuffles=True) for seed in range(20)]


def test_a_loop_in_which_nothing_can_happen_says_so() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run_in(SimulatedLoop(Random(1), shuffles=False), work)
