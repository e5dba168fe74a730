"""The options that say which account sends, shared by `python -m simulator` and its `import`."""

import argparse
import os
import re

from runtime.http.settings import is_http_url

PASSWORD_VARIABLE = "TIDEGATE_PASSWORD"  # noqa: S105 - the name of a variable
TOKEN_VARIABLE = "TIDEGATE_TOKEN"  # noqa: S105 - the name of a variable


def add_account_options(parser: argparse.ArgumentParser, *, email_help: str, required: bool = True) -> None:
    """Add `--url`, `--email` and `--password`."""
    add = parser.add_argument
    add("--url", required=required, type=_url, help="Tidegate's URL, for example http://127.0.0.1:8080")
    add("--email", required=required, help=email_help)
    add("--password", help=f"its password; prefer {PASSWORD_VARIABLE}, which does not show up in process lists")


def password_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """Return the password, or exit through `parser.error`."""
    password = options.password or os.environ.get(PASSWORD_VARIABLE, "")
    if not password:
        parser.error(f"a password is required: --password, or {PASSWORD_VARIABLE} in the environment")
    return str(password)


def add_token_option(parser: argparse.ArgumentParser) -> None:
    """Add `--token`, which takes the place of an account's address and password."""
    about = "an API key for all devices of the account, in place of --email and a password"
    parser.add_argument("--token", help=f"{about}; prefer {TOKEN_VARIABLE}, as with --password")


def token_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """Return the API key, or nothing where `--email` asks for a password; exit through `parser.error` without both."""
    if options.token and options.email:
        parser.error("--token and --email: give one of them")
    token = str(options.token or ("" if options.email else os.environ.get(TOKEN_VARIABLE, "")))
    if not token and not options.email:
        parser.error(f"an account is required: --email and its password, or an API key as --token or {TOKEN_VARIABLE}")
    if re.search(r"[^!-~]", token):  # it becomes a header
        parser.error("the API key has a blank or another character that no token has")
    return token


def _url(text: str) -> str:
    if not is_http_url(text):
        raise argparse.ArgumentTypeError(f"{text!r} must have the form http://HOST:PORT or https://HOST:PORT")
    return text.rstrip("/")
