"""`python -m auth keys …`: operators rotate, list and retire the keys that sign tokens."""

import argparse
import sys
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from auth.database import open_database
from auth.keys import KeysError
from auth.migrate import require_schema
from auth.settings import KeySettings
from auth.stored_keys import State, StoredKey, StoredKeys
from auth.times import rfc3339
from runtime.logs import logger

log = logger("auth.audit")

TIMEOUT_S = 10.0


def add_keys(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    keys = commands.add_parser("keys", help="rotate, list or retire the keys that sign tokens")
    verbs = keys.add_subparsers(dest="verb", required=True)
    verbs.add_parser(
        "rotate",
        help="make the key that signs from now on",
        description="Make a new key. Running services sign with it within a second; the older ones verify until the "
        "last token that they signed has expired, and then go by themselves.",
    )
    listing = verbs.add_parser("list", help="show all keys and what each does")
    listing.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    retire = verbs.add_parser(
        "retire",
        help="let a key verify nothing any more",
        description="For a key that may be known to others: every token that it signed ends. Gateways refuse them "
        "within a minute.",
    )
    retire.add_argument("kid", help="as `list` shows it")


async def run_keys(settings: KeySettings, args: argparse.Namespace) -> None:
    """Run one of the commands; KeysError says what stands against it."""
    if settings.signing_key_files:
        raise KeysError("The keys come from SIGNING_KEY_FILES: change the files and start the service again.")
    async with open_database(settings.auth_database_url, connections=1, timeout_s=TIMEOUT_S) as database:
        await require_schema(database)
        keys = StoredKeys(database, settings.signing_key_secret)
        match args.verb:
            case "rotate":
                kid = await keys.rotate(max(settings.access_token_seconds, settings.device_token_seconds))
                sys.stdout.write(f"{kid}\n")
                log.info("The signing key was rotated.", kid=kid, by="operator")
            case "retire":
                await keys.retire(args.kid)
                log.info("A signing key was retired.", kid=args.kid, by="operator")
            case "list":
                _show(await keys.listed(), as_json=args.json)


def _show(keys: list[tuple[StoredKey, State]], *, as_json: bool) -> None:
    rows = [
        {
            "number": key.number,
            "kid": key.kid,
            "state": state,
            "createdAt": rfc3339(key.created_at_ms),
            "retiresAt": None if key.retires_at_ms is None else rfc3339(key.retires_at_ms),
        }
        for key, state in keys
    ]
    if as_json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return
    table = Table(*rows[0] if rows else ("kid",), box=box.SIMPLE)
    for row in rows:
        table.add_row(*("–" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
