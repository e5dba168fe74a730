"""The life cycle of a process: read settings, set up logs, run until a signal or a failure, drain, exit.

Exit codes: 0 stopped cleanly; 1 could not go on, or could not drain in time; 2 settings or command line are wrong.
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

from runtime.allocator import keep_trimmed, use_one_arena
from runtime.background import background
from runtime.compiled import ignored_because
from runtime.http.problems import Problem
from runtime.logs import configure_logs, logger
from runtime.settings import ProcessSettings, SettingsError, from_env, unread
from runtime.waiting import done_before

log = logger("runtime.process")

# Objects in the garbage collector's first generation (700 by default), and those of an event in flight.
YOUNG_OBJECTS = 10_000
OBJECTS_PER_EVENT = 8

AnySettings = TypeVar("AnySettings", bound=ProcessSettings)


class CannotGoOnError(Exception):
    """A reason to end the process that is not a bug: a server is away, the database is from another release.

    Logged as one line, without a traceback.
    """


class Shutdown:
    """The stop request of a process; once it is made, `/healthz` answers 503.

    `event` is for parts that only need to wait for a stop.
    """

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.reason = ""

    @property
    def requested(self) -> bool:
        """Whether a stop has been requested."""
        return self.event.is_set()

    def request(self, reason: str) -> None:
        """Request a clean stop; the first reason is kept."""
        if not self.requested:
            self.reason = reason
            self.event.set()

    async def wait(self) -> None:
        """Wait until a stop is requested."""
        await self.event.wait()


def freeze_startup_objects() -> None:
    """Exclude all live objects from garbage collection (gc.freeze). Call once the service is up.

    A full collection would otherwise scan some 200,000 start-up objects, which blocks the event loop for 20 to 50 ms.
    Thousands of objects wait for a confirm, or for a write, and are not garbage: the first generation is large enough
    for them, or each of its collections would scan them in vain.
    """
    gc.collect()
    gc.freeze()
    expect_events(0)


def expect_events(in_flight: int) -> None:
    """Size the garbage collector's first generation for this many events at once, each with its objects."""
    gc.set_threshold(YOUNG_OBJECTS + OBJECTS_PER_EVENT * in_flight, *gc.get_threshold()[1:])


def raise_fd_limit() -> int:
    """Raise the soft limit on open files to the hard limit, and return it.

    Each connection is an open file. The soft limit is 1,024 on most systems, for programs that use select(2); the hard
    limit is the administrator's.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


Serve = Callable[[AnySettings, Shutdown], Awaitable[None]]


def run_service(settings_type: type[AnySettings], serve: Serve[AnySettings]) -> int:
    """Read the settings, run the service until it stops, and return the exit code.

    Its threads take memory from one arena, which is trimmed each minute (runtime.allocator).
    """
    use_one_arena()
    try:
        settings = from_env(settings_type)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs(settings.log_level, settings.log_format)
    warn_of_unread(settings_type)
    warn_of_ignored()

    async def serve_trimmed(shutdown: Shutdown) -> None:
        async with background(keep_trimmed(), name="heap"):
            await serve(settings, shutdown)

    return run_until_stopped(serve_trimmed, settings.drain_seconds)


def warn_of_unread(*settings: type[Any]) -> None:
    """Log the name, never the value, of each variable that looks like a setting but is not. Call once, at the start."""
    for found in unread(settings):
        meant = {"meant": found.meant} if found.meant else {}
        log.warning("A variable is set that no process reads; is it misspelt?", variable=found.variable, **meant)


def warn_of_ignored() -> None:
    """Log that there are compiled modules which do not fit, if so. Call once, at the start."""
    if why := ignored_because():
        log.warning("Compiled modules are ignored; `make build-fast` builds them again.", why=why)


def run_until_stopped(serve: Callable[[Shutdown], Awaitable[None]], drain_seconds: float) -> int:
    """Run `serve` on a new event loop until it returns, and return the exit code.

    SIGTERM and SIGINT request a stop. A second signal, or `drain_seconds` without an end, cancels the drain; messages
    that are not settled by then stay with the broker.
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
        except Exception:  # the top of the process: log what ended it, then exit with 1
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
    # Cancelled work still closes its connections; if it hangs even then, the operating system cleans up.
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
        import uvloop  # noqa: PLC0415 - not available on Windows, where the standard loop is used
    except ImportError:
        return None
    return uvloop.new_event_loop
