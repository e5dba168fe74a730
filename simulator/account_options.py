"""The options that say which account sends, shared by `python -m simulator` and its `import`."""

import argparse
import os

PASSWORD_VARIABLE = "TIDEGATE_PASSWORD"  # noqa: S105 - the name of a variable


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


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} must start with http:// or https://")
    return text.rstrip("/")
