"""An event loop in virtual time: one callback after the other, in an order that the seed draws, without any waiting.

Each process of the simulation is a context; everything that its tasks schedule is run in it. A killed process is never
run again: no `finally`, no `except`, no answer. Where its tasks stood, they stay, as after `kill -9`.
"""

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from random import Random
from typing import Any, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")
Context = contextvars.Context | None
_PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class DeadlockError(Exception):
    """Nothing is left to run, and no time to wait for."""


class Process:
    """One run of a process, from its start to its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        # The number of callbacks run, and the one before which it is killed.
        self.steps = 0
        self.kill_at: int | None = None
        self.on_kill: Callable[[Process], None] = Process.kill
        self._context = contextvars.copy_context()
        self._context.run(_PROCESS.set, self)
        # What will never run again: kept until the seed is over, as freeing a coroutine runs its cleanup.
        self.abandoned: list[object] = []

    @property
    def context(self) -> contextvars.Context:
        """A context of this process, to schedule something in."""
        return self._context.copy()

    def spawn(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Run a coroutine as a task of this process."""
        return asyncio.get_running_loop().create_task(work, context=self.context)

    def kill(self) -> None:
        """End it, now."""
        self.alive = False


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    numbers = count()

    def __init__(self, work: Generator[Any, None, Any], **options: Any) -> None:
        self._number = next(_Task.numbers)
        super().__init__(work, **options)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._number


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks of different processes in any order; those of one in any order too if `shuffles`."""

    def __init__(self, random: Random, *, shuffles: bool) -> None:
        super().__init__()
        self._random = random
        self._shuffles = shuffles
        self._now = 0.0
        self._due: list[asyncio.Handle] = []
        # With a number, so that no two are compared as handles: that would take a tenth of a run.
        self._later: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()
        self.steps = 0
        _Task.numbers = count()
        self.set_task_factory(_task)

    def time(self) -> float:
        """Return the virtual time in seconds since the start."""
        return self._now

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context = None
    ) -> asyncio.Handle:
        """Run a callback with those that are due."""
        handle = asyncio.Handle(callback, args, self, context)
        self._due.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context = None
    ) -> asyncio.TimerHandle:
        """Run a callback in so many seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context = None
    ) -> asyncio.TimerHandle:
        """Run a callback at a time of this loop."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._later, (when, next(self._numbers), timer))
        return timer

    def run_in_executor(  # type: ignore[override]  # the tuple of the base class's own arguments
        self, executor: Any, function: Callable[..., Result], *arguments: Any
    ) -> "asyncio.Future[Result]":
        """Run a function that would have a thread of its own: whole, a little later."""
        done: asyncio.Future[Result] = self.create_future()

        def run() -> None:
            try:
                result = function(*arguments)
            except Exception as error:  # noqa: BLE001 - as a thread pool does
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self.call_later(self._random.random() * 0.005, run)
        return done

    def _run_once(self) -> None:
        handle = self._next()
        if handle._cancelled:
            return
        process = handle._context.get(_PROCESS)  # type: ignore[attr-defined]
        if process is not None:
            process.steps += 1
            if process.steps == process.kill_at and process.alive:
                process.on_kill(process)
            if not process.alive:
                process.abandoned.append(handle)
                return
        self.steps += 1
        handle._run()

    def _next(self) -> asyncio.Handle:
        due, later = self._due, self._later
        while later and (not due or later[0][0] <= self._now):
            when, _, timer = heapq.heappop(later)
            if not timer.cancelled():
                self._now = max(self._now, when)
                due.append(timer)
        if len(due) <= 1:
            if not due:
                raise DeadlockError
            return due.pop()
        chosen = int(self._random.random() * len(due))
        if not self._shuffles:
            process = due[chosen]._context.get(_PROCESS)  # type: ignore[attr-defined]
            chosen = next(at for at, one in enumerate(due) if one._context.get(_PROCESS) is process)  # type: ignore[attr-defined]
        return due.pop(chosen)

    def forget(self) -> None:
        """Drop what would still run, and close."""
        self._due.clear()
        self._later.clear()
        self.close()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it in the heap, where it is skipped."""

    def _write_to_self(self) -> None:
        """Do nothing: there is no other thread."""

    async def shutdown_asyncgens(self) -> None:
        """Leave generators of killed processes as they are."""

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        """Remember no generator."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Close no generator: its process was killed, or the seed is over."""


def _task(
    loop: asyncio.AbstractEventLoop, work: Any, context: contextvars.Context | None = None
) -> "asyncio.Task[Any]":
    return _Task(work, loop=loop, context=context)


def current() -> Process | None:
    """Return the process that is running; None in the simulation itself."""
    return _PROCESS.get()
