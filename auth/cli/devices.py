"""`python -m auth devices …`: import devices for an owner, and issue tokens for devices.

Tokens go to standard output and are shown nowhere else; what happened goes to standard error.
"""

import argparse
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import select

from auth.accounts import email_key
from auth.cli.common import RefusedError, audit_log, operators_database
from auth.device_import import DeviceImport, DeviceRow, Imported, Refusal
from auth.devices import Device, DeviceRegistry
from auth.http.batch_bodies import answer_rows, csv_of
from auth.http.device_rows import CSV, MAX_ROWS, read_rows
from auth.settings import DeviceSettings
from auth.tokens.issuer import TokenIssuer
from auth.tokens.key_files import read_key_files
from auth.tokens.keys import KeyRing
from auth.tokens.revocations import RevocationLog
from auth.tokens.stored_keys import StoredKeys
from database.connection import Database
from database.tables import users
from runtime.http.operation import JSON
from runtime.http.problems import Problem
from runtime.operators import system_user

_PAGE = 500


def add_devices(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    devices = commands.add_parser(
        "devices",
        help="import devices for an owner, or issue tokens for an owner's devices",
        description="Import devices and issue their tokens. Every change is written to the audit log.",
    )
    verbs = devices.add_subparsers(dest="verb", required=True, metavar="{import,tokens}")
    importing = verbs.add_parser(
        "import",
        help="register the devices of a CSV or JSON file",
        description="Register the devices of a file: CSV whose first line names the columns name, sensorType and "
        f"location, or a JSON array of such objects, as POST /devices/batch; at most {MAX_ROWS:,} rows. Prints the "
        "outcome of every row as CSV. A device that is there with the same fields is no error, so a file can be "
        "imported again. Exits with 1 if a row was refused.",
        settings=DeviceSettings,
    )
    importing.add_argument("file", metavar="FILE", help="ending in .csv or .json; - reads CSV from standard input")
    importing.add_argument("--tokens", action="store_true", help="issue a token for each device")
    tokens = verbs.add_parser(
        "tokens",
        help="issue tokens for an owner's devices",
        description="Issue a token for each named device of an owner, or for all of them, and print id, name and "
        "token as CSV. Older tokens stay valid.",
        settings=DeviceSettings,
    )
    tokens.add_argument("names", metavar="NAME", nargs="*", help="of a device; none: all of the owner's")
    for verb in (importing, tokens):
        verb.add_argument("--owner", metavar="EMAIL", required=True, help="e-mail address of the owner's account")


async def run_devices(settings: DeviceSettings, args: argparse.Namespace) -> None:
    """Run one of the commands; raise RefusedError if it cannot be carried out, or not for every row."""
    async with operators_database(settings) as database:
        if args.verb == "import":
            await _import(settings, database, await _owner(database, args.owner), args)
        else:
            await _tokens(settings, database, args.owner, args.names)


async def _import(settings: DeviceSettings, database: Database, owner_id: str, args: argparse.Namespace) -> None:
    rows = _rows_of(args.file)
    issuer = await _issuer(settings, database) if args.tokens else None
    done = refused = 0
    async for outcomes in DeviceImport(database, settings.max_devices_per_owner).chunks(owner_id, rows):
        imported = [outcome for outcome in outcomes if isinstance(outcome, Imported)]
        tokens = None if issuer is None else _signed(issuer, [one.device for one in imported])
        new = [one.device.id for one in imported if one.is_new]
        _audit("Devices were imported.", owner_id, registered=new, tokens=len(tokens or ()))
        _print(csv_of(answer_rows(done, outcomes, tokens)), first=done == 0)
        done, refused = done + len(outcomes), refused + len(outcomes) - len(imported)
    if refused:
        raise RefusedError(f"{refused} of {done} rows were refused: see the columns code and detail.")


async def _tokens(settings: DeviceSettings, database: Database, email: str, names: list[str]) -> None:
    owner_id = await _owner(database, email)
    revocations = RevocationLog(
        database, access_s=settings.access_token_seconds, device_s=settings.device_token_seconds
    )
    registry = DeviceRegistry(database, revocations, settings.max_devices_per_owner)
    issuer = await _issuer(settings, database)
    if names:
        found = [device for name in names for device in await _named(registry, owner_id, name)]
        if missing := set(names) - {device.name for device in found}:
            raise RefusedError(f"The owner has no device named {', '.join(sorted(missing))}.")
        pages = _one_page(found)
    else:
        pages = _all_pages(registry, owner_id)
    first = True
    async for devices in pages:
        # Only now: a token issued with what disabling has raised `gen` to would survive it.
        await _owner(database, email)
        rows = answer_rows(0, [Imported(device, is_new=False) for device in devices], _signed(issuer, devices))
        _audit("Tokens of devices were issued.", owner_id, tokens_of=[device.id for device in devices])
        _print(csv_of(rows, ("id", "name", "token")), first=first)
        first = False


async def _named(registry: DeviceRegistry, owner_id: str, name: str) -> list[Device]:
    return (await registry.page(owner_id, name=name, after=None, limit=1)).items


async def _one_page(devices: list[Device]) -> AsyncIterator[list[Device]]:
    yield devices


async def _all_pages(registry: DeviceRegistry, owner_id: str) -> AsyncIterator[list[Device]]:
    after: str | None = None
    while devices := (await registry.page(owner_id, name=None, after=after, limit=_PAGE)).items:
        yield devices
        after = devices[-1].id


def _signed(issuer: TokenIssuer, devices: Iterable[Device]) -> list[str]:
    return [issuer.for_device(device).token for device in devices]


def _rows_of(name: str) -> list[DeviceRow | Refusal]:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise RefusedError(f"{name} cannot be read: {error.strerror}.") from error
    try:
        return read_rows(raw, JSON if name.endswith(".json") else CSV)
    except Problem as problem:
        where = "; ".join(f"{error.field}: {error.message}" for error in problem.errors)
        raise RefusedError(f"{problem.detail} {where}".strip()) from problem


async def _owner(database: Database, email: str) -> str:
    query = select(users.c.id).where(users.c.email_key == email_key(email), users.c.disabled_at_ms.is_(None))
    async with database.connect() as connection:
        owner_id = await connection.scalar(query)
    if owner_id is None:
        raise RefusedError(f"{email} has no account, or it is disabled.")
    return owner_id


async def _issuer(settings: DeviceSettings, database: Database) -> TokenIssuer:
    if settings.signing_key_files:
        keys = read_key_files(settings.signing_key_files)
    else:
        keys = await StoredKeys(database, settings.signing_key_secret).load()
    access_s, device_s = settings.access_token_seconds, settings.device_token_seconds
    return TokenIssuer(KeyRing(keys), issuer=settings.token_issuer, access_s=access_s, device_s=device_s)


def _audit(event: str, owner_id: str, **about: object) -> None:
    audit_log.info(event, user=owner_id, by="operator", system_user=system_user(), **about)


def _print(text: bytes, *, first: bool) -> None:
    """Print CSV, its line of names once."""
    lines = text.decode().replace("\r\n", "\n")
    sys.stdout.write(lines if first else lines.partition("\n")[2])
    sys.stdout.flush()
