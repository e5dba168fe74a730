"""`python -m auth keys …`: operators rotate, list and retire the keys that sign tokens."""

import re
import sys
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from auth.cli.common import audit_log, operators_database
from auth.database import Database
from auth.settings import KeyListSettings, KeySettings
from auth.tokens.key_files import read_key_files
from auth.tokens.keys import KeysError
from auth.tokens.revocations import end_key
from auth.tokens.stored_keys import State, StoredKeys
from runtime.operators import system_user
from runtime.times import rfc3339

_FILES = (
    "The keys come from SIGNING_KEY_FILES. To change them, give every replica the new key as a later file and restart; "
    "a minute later put it first and restart again; take the old one out when its tokens have expired."
)
# A thumbprint: auth/tokens/keys.py.
_KID = re.compile(r"[A-Za-z0-9_-]{43}")
# Neither showing nor retiring a key opens it.
_NO_SECRET = ""
_WIDTH = 140


class KeyRow(msgspec.Struct, rename="camel"):
    """A key as an operator sees it; keys from files have no times."""

    number: int
    kid: str
    created_at: str | None
    state: State
    signs_at: str | None
    retires_at: str | None


def add_keys(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    keys = commands.add_parser(
        "keys", help="rotate, list or retire the keys that sign tokens", description="The keys that sign tokens."
    )
    verbs = keys.add_subparsers(dest="verb", required=True, metavar="{rotate,list,retire}")
    rotate = verbs.add_parser(
        "rotate",
        help="make the key that signs next",
        description="Make a new key and print its id. Running services publish it at once and sign with it "
        "KEY_PUBLISH_SECONDS later, without restart, so that those who keep a copy of the keys have it by then. "
        "The keys before it verify until the last token that they signed has expired, and then go by themselves: run "
        "this with the ACCESS_TOKEN_SECONDS, DEVICE_TOKEN_SECONDS and SIGNING_KEY_SECRET of the service.",
        settings=KeySettings,
    )
    rotate.add_argument(
        "--now",
        action="store_true",
        help="for a key that has leaked: sign within a second, with the key that is published already if there is one; "
        "others who keep a copy of the keys may refuse new tokens until they fetch them again",
    )
    listing = verbs.add_parser(
        "list",
        help="show all keys and what each does",
        description="Show all keys, the oldest first.",
        settings=KeyListSettings,
    )
    listing.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    retire = verbs.add_parser(
        "retire",
        help="let a key verify nothing any more",
        description="For a key that may be known to others: every token that it signed ends. The auth service refuses "
        "them at once; elsewhere sockets, live feeds and calls end within 5 seconds. Users log in again or refresh; "
        "devices need new tokens. The key that signs cannot be retired: `rotate --now` first. One that is published "
        "only will never sign. One of SIGNING_KEY_FILES is taken out of them before.",
        settings=KeyListSettings,
    )
    retire.add_argument(
        "kid", metavar="KID", help="its id, as `list` shows it (after `--` where it begins with a dash)"
    )


async def run_rotate(settings: KeySettings, *, at_once: bool) -> None:
    """Make a new key; KeysError says what stands against it."""
    if settings.signing_key_files:
        raise KeysError(_FILES)
    keep_s = max(settings.access_token_seconds, settings.device_token_seconds)
    async with operators_database(settings) as database:
        keys = StoredKeys(database, settings.signing_key_secret)
        key = await keys.rotate(keep_s, 0 if at_once else settings.key_publish_seconds)
        audit_log.info(
            "The signing key was rotated.",
            kid=key.kid,
            signs_at=_shown(key.signs_at_ms),
            by="operator",
            system_user=system_user(),
        )
    sys.stdout.write(f"{key.kid}\n")


async def run_retire(settings: KeyListSettings, kid: str) -> None:
    """Retire a key; KeysError says what stands against it."""
    async with operators_database(settings) as database:
        if settings.signing_key_files:
            await _end_file_key(database, settings.signing_key_files, kid)
        else:
            await StoredKeys(database, _NO_SECRET).retire(kid)
        audit_log.warning("A signing key was retired.", kid=kid, by="operator", system_user=system_user())


async def _end_file_key(database: Database, paths: tuple[str, ...], kid: str) -> None:
    """End what a key signed that was among the files; nobody but the operator knows that it was."""
    if kid in read_key_files(paths).public:
        raise KeysError(f"This key is among SIGNING_KEY_FILES and would go on signing or verifying. {_FILES}")
    if not _KID.fullmatch(kid):
        raise KeysError(f"{kid!r} is no id of a key: 43 characters, as `list` showed it.")
    async with database.writing() as connection:
        await end_key(connection, kid)


async def run_list(settings: KeyListSettings, *, as_json: bool) -> None:
    """Show the keys."""
    if settings.signing_key_files:
        rows = _file_rows(settings.signing_key_files)
    else:
        rows = await _stored_rows(settings)
    if as_json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return
    table = Table("number", "kid", "created", "state", box=box.SIMPLE)
    for row in rows:
        table.add_row(str(row.number), row.kid, row.created_at or "–", _told(row))
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


async def _stored_rows(settings: KeyListSettings) -> list[KeyRow]:
    async with operators_database(settings) as database:
        keys = await StoredKeys(database, _NO_SECRET).listed()
    return [
        KeyRow(
            key.number,
            key.kid,
            rfc3339(key.created_at_ms),
            state,
            _shown(key.signs_at_ms),
            _shown(key.ends_at_ms),
        )
        for key, state in keys
    ]


def _told(row: KeyRow) -> str:
    if row.state == "published":
        return f"published, signs from {row.signs_at}"
    if row.state == "verifying" and row.retires_at:
        return f"verifying until {row.retires_at}"
    return row.state


def _shown(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else rfc3339(milliseconds)


def _file_rows(paths: tuple[str, ...]) -> list[KeyRow]:
    return [
        KeyRow(number, kid, None, "signing" if number == 1 else "verifying", None, None)
        for number, kid in enumerate(read_key_files(paths).public, start=1)
    ]
