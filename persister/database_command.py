"""Runs an operator's command on the database, and says on standard error how it ended."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from persister.mongodb_errors import WriteFailed
from persister.settings import ReadingsSettings
from runtime.logs import configure_logs
from runtime.mongodb import mongodb_client
from runtime.settings import SettingsError, from_env

# For one call; a command as a whole has no time limit.
_CALL_TIMEOUT_S = 30.0

Settings = TypeVar("Settings", bound=ReadingsSettings)
Result = TypeVar("Result")


def run_on_database(
    name: str,
    settings_type: type[Settings],
    work: Callable[[Settings, Any], Awaitable[Result]],
    show: Callable[[Result], int],
    *,
    done: str = "done",
) -> int:
    """Connect, work and show the result; return the exit code, which is that of `show` if all went well.

    `work` may raise WriteFailed. `done`: what the command does, as in "What was done so far stays done".
    """
    try:
        settings = from_env(settings_type)
    except SettingsError as error:
        print_error(str(error))
        return 2
    configure_logs(settings.log_level, settings.log_format)

    async def connected() -> Result:
        async with mongodb_client(
            settings.readings_url, name=f"tidegate persister {name}", timeout_s=_CALL_TIMEOUT_S
        ) as client:
            return await work(settings, client[settings.readings_database])

    again = f"What was {done} so far stays {done}; run the command again."
    code = 0
    try:
        code = show(asyncio.run(connected()))
        sys.stdout.flush()
    except WriteFailed as error:
        print_error(f"MongoDB is away or refused: {error}")
        print_error(again)
        return 1
    except BrokenPipeError:  # the reader has closed the pipe, and the work is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print_error(f"Stopped. {again}")
        return 1
    return code


def print_error(line: str) -> None:
    """Print a line on standard error at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
