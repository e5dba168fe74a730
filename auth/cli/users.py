"""`python -m auth users …`: create, list, disable and delete accounts; the only way to create them with SIGNUP=closed.

Passwords come from the terminal, standard input or TIDEGATE_PASSWORD, never from the command line, which every process
on the machine can read.
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

from auth.accounts import Accounts, User
from auth.cli.announce import since_ms
from auth.cli.common import RefusedError, audit_log, operators_database
from auth.errors import EmailTakenError, NoSuchUserError
from auth.http.bodies import Email, PersonName
from auth.metrics import AuthMetrics
from auth.passwords import password_error, password_hasher
from auth.settings import AnnounceSettings, UserSettings
from auth.tokens.revocations import RevocationLog
from runtime.operators import system_user
from runtime.times import rfc3339

_PAGE = 500
# 32 characters, 128 random bits; hex has no dash, which a command line would take for an option.
_GENERATED_BYTES = 16
_PASSWORD = "The password is read from the terminal, unless TIDEGATE_PASSWORD or an option provides it."  # noqa: S105 - a help text


def add_users(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    users = commands.add_parser(
        "users",
        help="create, list, disable, enable or delete accounts, set their passwords, or announce deleted ones again",
        description="Manage accounts. Every change is written to the audit log.",
    )
    names = "{create,list,disable,enable,delete,set-password,announce-deleted}"
    verbs = users.add_subparsers(dest="verb", required=True, metavar=names)
    create = _add(verbs, "create", "create an account", f"Create an account, whatever SIGNUP is set to. {_PASSWORD}")
    create.add_argument("--email", required=True, help="what its user logs in with")
    create.add_argument("--name", required=True, help="1 to 200 characters")
    listing = _add(verbs, "list", "show all accounts", "Show all accounts, oldest first.")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    announce = (
        "Announce every deleted owner to the persisters again, each confirmed by the broker: needed after readings "
        "were restored from an older backup, which contains those of deleted owners. Repeating it is harmless. Needs "
        "BROKER_URL."
    )
    announcing = _add(verbs, "announce-deleted", "have the readings of deleted owners erased again", announce)
    announcing.add_argument(
        "--since", type=since_ms, metavar="TIME", help="only those deleted since then: RFC 3339, or ms since 1970"
    )
    disable = "Revoke every token of a user and of the user's devices, and block log-ins. Readings stay; API keys go."
    enable = "Let a disabled user log in again. The user's devices need new tokens, and scripts new API keys."
    delete = "Delete an account, its devices and all tokens, and soon after all its readings. This cannot be undone."
    change = f"Set a password. The user's sessions end; devices and API keys are not affected. {_PASSWORD}"
    for verb in (
        _add(verbs, "disable", "revoke all tokens of a user and block log-ins", disable),
        _add(verbs, "enable", "let a disabled user log in again", enable),
        deleting := _add(verbs, "delete", "delete an account and all its readings", delete),
        setting := _add(verbs, "set-password", "set a user's password", change),
    ):
        verb.add_argument("email", metavar="EMAIL", help="of the account")
    deleting.add_argument("--yes", action="store_true", help="do not ask to type the address again")
    setting.add_argument("--end-keys", action="store_true", help="end the user's API keys, too")
    for verb in (create, setting):
        source = verb.add_mutually_exclusive_group()
        source.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        source.add_argument("--generate", action="store_true", help="generate a password and print it")


def _add(verbs: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    # No abbreviations: `--password SECRET` must not be taken for `--password-stdin`.
    settings = AnnounceSettings if name == "announce-deleted" else UserSettings
    verb: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=description, settings=settings, allow_abbrev=False
    )
    return verb


async def run_users(settings: UserSettings, args: argparse.Namespace) -> None:
    """Run one of the commands; raise RefusedError if it cannot be carried out."""
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
    async with operators_database(settings) as database:
        access_s, device_s = settings.access_token_seconds, settings.device_token_seconds
        revocations = RevocationLog(database, access_s=access_s, device_s=device_s)
        with password_hasher(
            cost=settings.bcrypt_cost, threads=1, queue=1, metrics=AuthMetrics(CollectorRegistry())
        ) as passwords:
            yield Accounts(database, passwords, revocations)


async def _create(accounts: Accounts, args: argparse.Namespace) -> None:
    email = _checked(args.email, Email, "--email: this is not an e-mail address.")
    name = _checked(args.name, PersonName, "--name: a name has 1 to 200 characters and no control characters.")
    password = _password(args, (name, email))
    try:
        user = await accounts.create(name, email, password)
    except EmailTakenError as error:
        raise RefusedError(f"{email} has an account.") from error
    audit_log.info("A user was created.", user=user.id, by="operator", system_user=system_user())
    _print_generated(args, password)


_DONE = {
    "set-password": "A user's password was set.",
    "disable": "A user was disabled.",
    "enable": "A user was enabled.",
    "delete": "An account was deleted.",
}


async def _change(accounts: Accounts, args: argparse.Namespace) -> None:
    email = _checked(args.email, Email, "This is not an e-mail address.")
    password = ""
    try:
        user = await accounts.find_by_email(email)
        match args.verb:
            case "set-password":
                password = _password(args, (user.name, user.email))
                await accounts.change(user.id, password=password, end_keys=args.end_keys)
            case "disable":
                await accounts.disable(user.id)
            case "enable":
                await accounts.enable(user.id)
            case "delete":
                _confirm(user, args)
                await accounts.delete(user.id)
    except NoSuchUserError as error:
        raise RefusedError(f"{email} has no account.") from error
    audit_log.info(_DONE[args.verb], user=user.id, by="operator", system_user=system_user())
    if args.verb == "set-password":
        _print_generated(args, password)


async def _list(accounts: Accounts, *, as_json: bool) -> None:
    """Print page by page: there may be too many users to hold in memory."""
    if not as_json:
        _print_columns("id", "created", "state", "email", "name")
    after: str | None = None
    while page := await accounts.page(after, _PAGE):
        for user in page:
            if as_json:
                sys.stdout.write(msgspec.json.encode(_as_json(user)).decode() + "\n")
            else:
                state = "active" if user.disabled_at_ms is None else "disabled"
                _print_columns(user.id, rfc3339(user.created_at_ms), state, user.email, user.name)
        after = page[-1].id


def _print_columns(user_id: str, created: str, state: str, email: str, name: str) -> None:
    sys.stdout.write(f"{user_id:<36}  {created:<24}  {state:<8}  {email:<32}  {name}\n")


def _as_json(user: User) -> dict[str, str | None]:
    disabled = user.disabled_at_ms
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "createdAt": rfc3339(user.created_at_ms),
        "disabledAt": None if disabled is None else rfc3339(disabled),
    }


def _checked(text: str, kind: Any, rule: str) -> str:
    """Return the text if it is valid for a field of sign-up; raise RefusedError with `rule` otherwise."""
    try:
        text.encode()  # the command line may contain bytes that are not UTF-8
        msgspec.convert(text, kind)
    except (UnicodeEncodeError, msgspec.ValidationError) as error:
        raise RefusedError(rule) from error
    return text


def _password(args: argparse.Namespace, about: tuple[str, str]) -> str:
    if args.generate:
        return secrets.token_hex(_GENERATED_BYTES)
    password = _given_password(from_stdin=args.password_stdin)
    try:
        problem = password_error(password, about)
    except UnicodeEncodeError as error:
        raise RefusedError("The password is not UTF-8.") from error
    if problem:
        raise RefusedError(problem.message)
    return password


def _given_password(*, from_stdin: bool) -> str:
    try:
        if from_stdin:
            return sys.stdin.readline().rstrip("\r\n")
        if "TIDEGATE_PASSWORD" in os.environ:
            return os.environ["TIDEGATE_PASSWORD"]
        if not sys.stdin.isatty():
            raise RefusedError("There is no terminal to ask for a password: use --password-stdin or --generate.")
        password = getpass.getpass("Password: ")
        again = getpass.getpass("Again: ")
    except UnicodeDecodeError as error:
        raise RefusedError("The password is not UTF-8.") from error
    except EOFError as error:
        raise RefusedError("No password was given.") from error
    if again != password:
        raise RefusedError("The two passwords are not the same.")
    return password


def _print_generated(args: argparse.Namespace, password: str) -> None:
    if args.generate:
        sys.stdout.write(f"{password}\n")


def _confirm(user: User, args: argparse.Namespace) -> None:
    if args.yes:
        return
    sys.stderr.write(f"This deletes the account, its devices and all its readings. Type {user.email} to continue: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() != user.email.lower():
        raise RefusedError("The address was not typed again (or use --yes): nothing was deleted.")
