"""`python -m auth keys …`: rotate, list and retire the keys that sign tokens."""

import re
import sys
from typing import Any

import msgspec

from auth.cli.common import audit_log, operators_database
from auth.settings import KeyListSettings, KeySettings
from auth.tokens.api_key_rows import delete_api_keys, valid_keys_signed_by
from auth.tokens.key_files import read_key_files
from auth.tokens.keys import KeysError
from auth.tokens.revocations import revoke_key
from auth.tokens.stored_keys import State, StoredKeys
from database.connection import Database
from database.tables import api_keys
from runtime.operators import system_user
from runtime.times import rfc3339

_FILES = (
    "The keys come from SIGNING_KEY_FILES. To rotate them, add the new key as a later file on every replica and "
    "restart; a minute later put it first and restart again; remove the old one when its tokens have expired, and the "
    "API keys that `keys list` counts for it."
)
# A thumbprint: auth/tokens/keys.py.
_KID = re.compile(r"[A-Za-z0-9_-]{43}")
# Neither listing nor retiring a key decrypts it.
_NO_SECRET = ""
_WIDTH = 180


class KeyRow(msgspec.Struct, rename="camel"):
    """A key as shown to operators; keys from files have no times."""

    number: int
    kid: str
    created_at: str | None
    state: State
    signs_at: str | None
    retires_at: str | None
    api_keys: int
    api_keys_until: str | None


def add_keys(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    keys = commands.add_parser(
        "keys", help="rotate, list or retire the keys that sign tokens", description="Manage the keys that sign tokens."
    )
    verbs = keys.add_subparsers(dest="verb", required=True, metavar="{rotate,list,retire}")
    rotate = verbs.add_parser(
        "rotate",
        help="create the key that signs next",
        description="Create a new key and print its id. Running services publish it at once and sign with it "
        "KEY_PUBLISH_SECONDS later, without a restart, so that verifiers that cache the keys have it by then. The "
        "older keys verify until the last token that they signed has expired, API keys included, and are then retired "
        "automatically: run "
        "this with the ACCESS_TOKEN_SECONDS, DEVICE_TOKEN_SECONDS and SIGNING_KEY_SECRET of the service.",
        settings=KeySettings,
    )
    rotate.add_argument(
        "--now",
        action="store_true",
        help="if a key has leaked: sign within a second, with the key that is already published if there is one; "
        "verifiers that cache the keys may refuse new tokens until they fetch the keys again",
    )
    listing = verbs.add_parser(
        "list",
        help="show all keys and their states",
        description="Show all keys, oldest first.",
        settings=KeyListSettings,
    )
    listing.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    retire = verbs.add_parser(
        "retire",
        help="end a key and every token that it signed",
        description="For a key that others may know: revokes every token that it signed. The auth service refuses "
        "them at once; elsewhere, sockets, live feeds and calls end within 5 seconds. Users log in again or refresh; "
        "devices need new tokens. API keys end, too: it prints how many. The signing key cannot be retired: use "
        "`rotate --now` first. A key that is only published will never sign. Remove a key from SIGNING_KEY_FILES "
        "before you retire it.",
        settings=KeyListSettings,
    )
    retire.add_argument(
        "kid", metavar="KID", help="its id, as `list` shows it (after `--` where it begins with a dash)"
    )


async def run_rotate(settings: KeySettings, *, at_once: bool) -> None:
    """Rotate the signing key and print the new key's id; raise KeysError if that is refused."""
    if settings.signing_key_files:
        raise KeysError(_FILES)
    keep_s = max(settings.access_token_seconds, settings.device_token_seconds)
    async with operators_database(settings) as database:
        keys = StoredKeys(database, settings.signing_key_secret)
        key = await keys.rotate(keep_s, 0 if at_once else settings.key_publish_seconds)
        audit_log.info(
            "The signing key was rotated.",
            kid=key.kid,
            signs_at=_optional_time(key.signs_at_ms),
            by="operator",
            system_user=system_user(),
        )
    sys.stdout.write(f"{key.kid}\n")


async def run_retire(settings: KeyListSettings, kid: str) -> None:
    """Retire a key; raise KeysError if that is refused."""
    async with operators_database(settings) as database:
        if settings.signing_key_files:
            ended = await _retire_file_key(database, settings.signing_key_files, kid)
        else:
            ended = await StoredKeys(database, _NO_SECRET).retire(kid)
        audit_log.warning(
            "A signing key was retired.", kid=kid, api_keys_ended=ended, by="operator", system_user=system_user()
        )
    sys.stdout.write(f"API keys ended: {ended}\n")


async def _retire_file_key(database: Database, paths: tuple[str, ...], kid: str) -> int:
    """Revoke what a key signed that was among the files, which only the operator knows; return the API keys ended."""
    if kid in read_key_files(paths).public:
        raise KeysError(f"This key is among SIGNING_KEY_FILES and would go on signing or verifying. {_FILES}")
    if not _KID.fullmatch(kid):
        raise KeysError(f"{kid!r} is not the id of a key: 43 characters, as `list` shows it.")
    async with database.begin() as connection:
        ended = await delete_api_keys(connection, api_keys.c.kid == kid)
        await revoke_key(connection, kid, ended)
    return sum(key.was_valid for key in ended)


async def run_list(settings: KeyListSettings, *, as_json: bool) -> None:
    """Print the keys as a table or as JSON."""
    async with operators_database(settings) as database:
        if settings.signing_key_files:
            rows = await _file_rows(database, settings.signing_key_files)
        else:
            rows = await _stored_rows(database)
    if as_json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return
    from rich import box  # noqa: PLC0415 - the service, which imports this module too, has no use for it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("number", "kid", "created", "state", "API keys", box=box.SIMPLE)
    for row in rows:
        table.add_row(str(row.number), row.kid, row.created_at or "–", _state_text(row), _keys_text(row))
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


async def _stored_rows(database: Database) -> list[KeyRow]:
    keys = await StoredKeys(database, _NO_SECRET).listed()
    counted = await _api_keys(database, [key.kid for key, _ in keys])
    return [
        KeyRow(
            key.number,
            key.kid,
            rfc3339(key.created_at_ms),
            state,
            _optional_time(key.signs_at_ms),
            _optional_time(key.ends_at_ms),
            *counted[key.kid],
        )
        for key, state in keys
    ]


def _state_text(row: KeyRow) -> str:
    if row.state == "published":
        return f"published, signs from {row.signs_at}"
    if row.state == "verifying" and row.retires_at:
        return f"verifying until {row.retires_at}"
    return row.state


def _optional_time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else rfc3339(milliseconds)


def _keys_text(row: KeyRow) -> str:
    return "–" if row.api_keys_until is None else f"{row.api_keys}, until {row.api_keys_until}"


async def _file_rows(database: Database, paths: tuple[str, ...]) -> list[KeyRow]:
    kids = list(read_key_files(paths).public)
    counted = await _api_keys(database, kids)
    return [
        KeyRow(number, kid, None, "signing" if number == 1 else "verifying", None, None, *counted[kid])
        for number, kid in enumerate(kids, start=1)
    ]


async def _api_keys(database: Database, kids: list[str]) -> dict[str, tuple[int, str | None]]:
    """Return how many valid API keys each signing key has signed, and when the last of them expires."""
    async with database.connect() as connection:
        counted = {kid: await valid_keys_signed_by(connection, kid) for kid in kids}
    return {kid: (count, _optional_time(until_ms)) for kid, (count, until_ms) in counted.items()}
