"""The command line of `python -m auth`: without a command it runs the service; the commands are for operators.

Exit codes: 0 done; 1 refused, or a server is unreachable; 2 wrong command line or environment.
"""

import argparse
import asyncio
import io
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from auth.app import migrate_once, serve
from auth.cli.announce import run_announce
from auth.cli.devices import add_devices, run_devices
from auth.cli.keys import add_keys, run_list, run_retire, run_rotate
from auth.cli.users import add_users, run_users
from auth.errors import AuthError
from auth.schema import SchemaError
from auth.settings import (
    AnnounceSettings,
    AuthSettings,
    DatabaseSettings,
    DeviceSettings,
    KeyListSettings,
    KeySettings,
    UserSettings,
)
from auth.tokens.keys import KeysError
from broker.interface import BrokerError
from runtime.command_line import CommandParser, service_parser
from runtime.http.problems import Problem
from runtime.logs import configure_logs
from runtime.process import run_service
from runtime.settings import ProcessSettings, SettingsError, from_env

Settings = TypeVar("Settings", bound=ProcessSettings)

EXIT_CODES = (
    "0 if it is done, 1 if it was refused or a server is unreachable, 2 if the command line or a setting is wrong"
)


def main(arguments: list[str]) -> int:
    """Run the command and return the exit code."""
    try:
        args = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has printed the reason
        return int(stop.code or 0)
    match args.command:
        case "migrate":
            return run_service(DatabaseSettings, migrate_once)
        case "keys":
            return _run_keys(args)
        case "devices":
            return _run(DeviceSettings, lambda settings: run_devices(settings, args))
        case "users":
            return _run_users(args)
    return run_service(AuthSettings, serve)


def _run_keys(args: argparse.Namespace) -> int:
    match args.verb:
        case "rotate":
            return _run(KeySettings, lambda settings: run_rotate(settings, at_once=args.now))
        case "retire":
            return _run(KeyListSettings, lambda settings: run_retire(settings, args.kid))
    return _run(KeyListSettings, lambda settings: run_list(settings, as_json=args.json))


def _run_users(args: argparse.Namespace) -> int:
    if args.verb == "announce-deleted":
        return _run(AnnounceSettings, lambda settings: run_announce(settings, args))
    return _run(UserSettings, lambda settings: run_users(settings, args))


def _run(settings_type: type[Settings], command: Callable[[Settings], Coroutine[Any, Any, None]]) -> int:
    """Run an operator's command and return its exit code; expected errors are printed in one line."""
    try:
        settings = from_env(settings_type)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs(settings.log_level, settings.log_format)
    logging.getLogger("database").setLevel(logging.ERROR)  # the error is printed below
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of people may be any Unicode, whatever the locale
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        asyncio.run(command(settings))
        sys.stdout.flush()
    except BrokenPipeError:  # `… list | head` has exited; avoid another error when stdout is flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BrokerError as error:
        sys.stderr.write(f"The broker did not accept it: {_one_line(error)}\n")
        return 1
    except (Problem, DBAPIError, AuthError, KeysError, SchemaError) as error:
        sys.stderr.write(f"{_one_line(error)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 1
    return 0


def _one_line(error: Exception) -> str:
    """Return an error as one line for people; of a database driver's error, its last argument."""
    text = error.detail if isinstance(error, Problem) else str(error)
    driver = error if isinstance(error, DBAPIError) else error.__cause__
    if isinstance(driver, DBAPIError) and driver.orig is not None and driver.orig.args:
        text = f"The users' database does not answer as it should: {driver.orig.args[-1]}"
    return " ".join(text.split())


def _parser() -> CommandParser:
    parser = service_parser(
        "auth",
        "Manages accounts and devices, issues tokens and publishes the keys that verify them. Without a command it "
        "runs the service; the commands are for operators, next to a running service and with its settings.",
        AuthSettings,
        epilog=f"A command exits with {EXIT_CODES}.",
    )
    commands = parser.add_subparsers(dest="command", metavar="{migrate,keys,users,devices}")
    about = "upgrade the database to the newest schema"
    commands.add_parser("migrate", help=about, description=f"{about.capitalize()}.", settings=DatabaseSettings)
    add_keys(commands)
    add_users(commands)
    add_devices(commands)
    return parser
