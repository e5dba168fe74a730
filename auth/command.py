"""The command line of `python -m auth`: it serves; `migrate` brings the database to the newest schema."""

import sys

from auth.app import migrate_once, serve
from auth.settings import AuthSettings, DatabaseSettings
from runtime.process import run_service

USAGE = "usage: python -m auth [migrate]\n"


def main(arguments: list[str]) -> int:
    """Run the command and return the exit code."""
    match arguments:
        case []:
            return run_service(AuthSettings, serve)
        case ["migrate"]:
            return run_service(DatabaseSettings, migrate_once)
        case ["-h" | "--help"]:
            sys.stdout.write(USAGE)
            return 0
    sys.stderr.write(USAGE)
    return 2
