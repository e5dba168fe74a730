"""`python -m auth users …`: operators make, list, disable and delete accounts; the only way in where SIGNUP=closed.

Passwords come from the terminal, from standard input or from TIDEGATE_PASSWORD, never from the command line, where
every process of the machine can read them.
"""

import argparse
import getpass
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from rich import box
from rich.console import Console
from rich.table import Table

from auth.accounts import Accounts, User
from auth.bodies import SignUp
from auth.database import open_database
from auth.errors import AuthError, EmailTakenError, NoSuchUserError
from auth.migrate import require_schema
from auth.passwords import password_error, password_hasher
from auth.revocations import Revocations
from auth.settings import UserSettings
from auth.times import rfc3339
from runtime.logs import logger

log = logger("auth.audit")
PAGE = 500
TIMEOUT_S = 10.0


class RefusedError(AuthError):
    """What the operator asked for cannot be done; the message says why."""


def add_users(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    users = commands.add_parser("users", help="create, list, disable or delete accounts, or set their passwords")
    verbs = users.add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create", help="make an account")
    create.add_argument("--email", required=True)
    create.add_argument("--name", required=True)
    listing = verbs.add_parser("list", help="show all accounts")
    listing.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    change = verbs.add_parser("set-password", help="set a password; ends the user's sessions, devices stream on")
    for verb in (create, change):
        source = verb.add_mutually_exclusive_group()
        source.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        source.add_argument("--generate", action="store_true", help="make a password and print it")
    disable = verbs.add_parser("disable", help="end all tokens, the devices' too, and let the user not log in")
    enable = verbs.add_parser("enable", help="let a disabled user log in again; devices need new tokens")
    delete = verbs.add_parser("delete", help="delete an account, its devices, and soon after all its readings")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    for verb in (change, disable, enable, delete):
        verb.add_argument("email")


async def run_users(settings: UserSettings, args: argparse.Namespace) -> None:
    """Run one of the commands; AuthError says what stands against it."""
    async with _accounts(settings) as accounts:
        match args.verb:
            case "create":
                await _create(accounts, args)
            case "list":
                await _list(accounts, as_json=args.json)
            case _:
                await _change(accounts, args)


@asynccontextmanager
async def _accounts(settings: UserSettings) -> AsyncIterator[Accounts]:
    async with open_database(settings.auth_database_url, connections=1, timeout_s=TIMEOUT_S) as database:
        await require_schema(database)
        access_s, device_s = settings.access_token_seconds, settings.device_token_seconds
        revocations = Revocations(database, access_s=access_s, device_s=device_s)
        with password_hasher(cost=settings.bcrypt_cost, threads=1, queue=1, registry=CollectorRegistry()) as passwords:
            yield Accounts(database, passwords, revocations)


async def _create(accounts: Accounts, args: argparse.Namespace) -> None:
    try:
        fields = msgspec.convert({"name": args.name, "email": args.email, "password": ""}, SignUp)
    except msgspec.ValidationError as error:
        raise RefusedError(f"The account cannot be made: {error}.") from error
    password = _password(args, (fields.name, fields.email))
    try:
        user = await accounts.create(fields.name, fields.email, password)
    except EmailTakenError as error:
        raise RefusedError(f"{args.email} has an account.") from error
    if args.generate:
        sys.stdout.write(f"{password}\n")
    log.info("A user was created.", user=user.id, by="operator")


async def _change(accounts: Accounts, args: argparse.Namespace) -> None:
    try:
        user = await accounts.find_by_email(args.email)
        match args.verb:
            case "set-password":
                password = _password(args, (user.name, user.email))
                await accounts.change(user.id, password=password)
                if args.generate:
                    sys.stdout.write(f"{password}\n")
            case "disable":
                await accounts.disable(user.id)
            case "enable":
                await accounts.enable(user.id)
            case "delete":
                _confirm(args)
                await accounts.delete(user.id)
    except NoSuchUserError as error:
        raise RefusedError(f"{args.email} has no account.") from error
    log.info("An operator changed an account.", user=user.id, what=args.verb, by="operator")


async def _list(accounts: Accounts, *, as_json: bool) -> None:
    table = Table("id", "email", "name", "createdAt", "disabledAt", box=box.SIMPLE)
    after: str | None = None
    while page := await accounts.page(after, PAGE):
        for user in page:
            row = _row(user)
            if as_json:
                sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
            else:
                table.add_row(*(value or "–" for value in row.values()))
        after = page[-1].id
    if not as_json:
        Console(width=None if sys.stdout.isatty() else 160).print(table)


def _row(user: User) -> dict[str, str | None]:
    disabled = user.disabled_at_ms
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "createdAt": rfc3339(user.created_at_ms),
        "disabledAt": None if disabled is None else rfc3339(disabled),
    }


def _password(args: argparse.Namespace, about: tuple[str, str]) -> str:
    if args.generate:
        return secrets.token_urlsafe(18)
    if args.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif "TIDEGATE_PASSWORD" in os.environ:
        password = os.environ["TIDEGATE_PASSWORD"]
    elif sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise RefusedError("The two are not the same.")
    else:
        raise RefusedError("There is no terminal to ask for a password: use --password-stdin or --generate.")
    if wrong := password_error(password, about):
        raise RefusedError(wrong.message)
    return password


def _confirm(args: argparse.Namespace) -> None:
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError("There is no terminal to ask: use --yes.")
    sys.stdout.write(f"This deletes the account, its devices and all its readings. Type {args.email} to go on: ")
    sys.stdout.flush()
    if sys.stdin.readline().strip() != args.email:
        raise RefusedError("Nothing was deleted.")
