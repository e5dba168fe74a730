"""The command line of `python -m auth`: without a command it serves; the others are for operators.

Exit codes: 0 done; 1 refused, or a server is away; 2 a wrong command line or environment.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from auth.app import migrate_once, serve
from auth.command_keys import add_keys, run_keys
from auth.command_users import add_users, run_users
from auth.errors import AuthError
from auth.keys import KeysError
from auth.migrate import SchemaError
from auth.settings import AuthSettings, DatabaseSettings, KeySettings, UserSettings
from runtime.logs import configure_logs
from runtime.problems import Problem
from runtime.process import run_service
from runtime.settings import ProcessSettings, SettingsError, from_env

Settings = TypeVar("Settings", bound=ProcessSettings)


def main(arguments: list[str]) -> int:
    """Run the command and return the exit code."""
    try:
        args = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    match args.command:
        case "migrate":
            return run_service(DatabaseSettings, migrate_once)
        case "keys":
            return _run(KeySettings, lambda settings: run_keys(settings, args))
        case "users":
            return _run(UserSettings, lambda settings: run_users(settings, args))
    return run_service(AuthSettings, serve)


def _run(settings_type: type[Settings], command: Callable[[Settings], Awaitable[None]]) -> int:
    """Run an operator's command; what can be expected to go wrong is told in a line."""
    try:
        settings = from_env(settings_type)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs(settings.log_level, settings.log_format)
    try:
        asyncio.run(_awaited(command(settings)))
    except Problem as problem:
        sys.stderr.write(f"{problem.detail}\n")
        return 1
    except (AuthError, KeysError, SchemaError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m auth",
        description="Without a command, serve accounts, devices and tokens. Settings come from the environment.",
    )
    commands = parser.add_subparsers(dest="command", metavar="{migrate,keys,users}")
    commands.add_parser("migrate", help="bring the database to the newest schema")
    add_keys(commands)
    add_users(commands)
    return parser
