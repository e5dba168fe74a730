"""The life of a process: read settings, set up logs, run until a signal or a fault, drain, exit with a code that tells.

Exit codes: 0 stopped cleanly, 1 could not go on or could not drain in time, 2 the settings or the command are wrong.
"""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from runtime.http.problems import Problem
from runtime.logs import configure_logs, logger
from runtime.settings import ProcessSettings, SettingsError, from_env, unread
from runtime.waiting import done_before

log = logger("runtime.process")

AnySettings = TypeVar("AnySettings", bound=ProcessSettings)


class CannotGoOnError(Exception):
    """What ends a process and is no fault of the program: a server that is away, a database of another release.

    The message is told in a line; a traceback would say no more.
    """


class Shutdown:
    """The one place where a process learns that it is to stop; `/healthz` answers 503 from then on.

    `event` is for parts that wait for a stop without knowing whose.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.reason = ""

    @property
    def requested(self) -> bool:
        """True from the first request on."""
        return self.event.is_set()

    def request(self, reason: str) -> None:
        """Ask for a clean stop; the first reason stands."""
        if not self.requested:
            self.reason = reason
            self.event.set()

    async def wait(self) -> None:
        """Return once a stop was asked for."""
        await self.event.wait()


def freeze_startup_objects() -> None:
    """Call once everything is open: what is there by now stays, and no collection goes through it again.

    Modules and parts are some 200,000 objects; to look at all of them takes 20 to 50 ms, in which nobody is answered.
    """
    gc.collect()
    gc.freeze()


def raise_fd_limit() -> int:
    """Raise the soft limit of open files to the hard one; return it.

    Each connection is an open file, and the soft limit is 1,024 on most systems, for the sake of programs that use
    select(2); the hard one is what the administrator has set.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


Serve = Callable[[AnySettings, Shutdown], Awaitable[None]]


def run_service(settings_type: type[AnySettings], serve: Serve[AnySettings]) -> int:
    """Run one service from its environment to its end and return the exit code."""
    try:
        settings = from_env(settings_type)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs(settings.log_level, settings.log_format)
    warn_of_unread(settings_type)
    return run_until_stopped(lambda shutdown: serve(settings, shutdown), settings.drain_seconds)


def warn_of_unread(*settings: type[Any]) -> None:
    """Log each variable that looks like ours and that no process reads; never its value. Call once, at the start."""
    for it in unread(settings):
        meant = {"meant": it.meant} if it.meant else {}
        log.warning("A variable is set that no process reads; is it misspelt?", variable=it.variable, **meant)


def run_until_stopped(serve: Callable[[Shutdown], Awaitable[None]], drain_seconds: float) -> int:
    """Run `serve` on a fresh event loop; SIGTERM and SIGINT ask it to stop, a second one or the deadline cuts it short.

    A drain that outlives `drain_seconds` is cancelled; whatever was not settled stays with the broker.
    """
    raise_fd_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(_supervise(serve, drain_seconds))
        except _DrainCutShort as cut:
            log.error("The drain was cut short.", why=str(cut))
            return 1
        except (CannotGoOnError, Problem) as error:
            log.error("The process cannot go on.", why=error.detail if isinstance(error, Problem) else str(error))
            return 1
        except Exception:  # the top of the process: whatever ended it is told, then the code tells
            log.exception("The process cannot go on.")
            return 1
    return 0


class _DrainCutShort(Exception):
    pass


async def _supervise(serve: Callable[[Shutdown], Awaitable[None]], drain_seconds: float) -> None:
    shutdown = Shutdown()
    cut = asyncio.Event()
    work = asyncio.ensure_future(serve(shutdown))
    with _signals(shutdown, cut):
        if not await done_before(work, shutdown.event):
            await _drain(work, cut, drain_seconds, shutdown.reason)
    await work


async def _drain(work: "asyncio.Future[None]", cut: asyncio.Event, seconds: float, reason: str) -> None:
    log.info("Stopping.", reason=reason, drain_seconds=seconds)
    if await done_before(work, cut, timeout_s=seconds):
        return
    why = "a second signal" if cut.is_set() else f"{seconds:g} s have passed"
    work.cancel()
    # Cancelled work still closes its connections; what hangs even then is left to the operating system.
    await asyncio.wait((work,), timeout=2)
    if not work.done():
        log.error("The drain hangs; ending the process.", why=why)
        os._exit(1)
    raise _DrainCutShort(why)


@contextlib.contextmanager
def _signals(shutdown: Shutdown, cut: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        if shutdown.requested:
            cut.set()
        shutdown.request(number.name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - missing on Windows; the standard loop serves there
    except ImportError:
        return None
    return uvloop.new_event_loop
