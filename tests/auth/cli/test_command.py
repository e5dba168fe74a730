"""What all operators' commands share: exit codes, help, and one line if a server is unreachable."""

from pathlib import Path

import pytest

from tests.auth.processes import auth

AWAY = "mysql+aiomysql://nobody:hunter22@127.0.0.1:9/auth"


@pytest.mark.parametrize("arguments", [("users", "list"), ("keys", "list")])
async def test_a_database_that_is_away_is_told_in_a_line(arguments: tuple[str, ...]) -> None:
    ran = await auth(AWAY, *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert "database does not answer" in ran.err
    assert "127.0.0.1" in ran.err
    assert "hunter22" not in ran.err
    assert len(ran.err.splitlines()) == 1, ran.err


async def test_a_file_that_is_no_database_and_one_that_was_not_migrated_are_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all. " * 50)
    for name, says in (("text.db", "not a database"), ("empty.db", "python -m auth migrate")):
        ran = await auth(f"sqlite+aiosqlite:///{tmp_path / name}", "users", "list")
        assert (ran.code, says in ran.err, len(ran.err.splitlines())) == (1, True, 1), ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys",),
        ("users",),
        ("users", "promote"),
        ("keys", "retire"),
        ("users", "create"),
        # A password on the command line is no abbreviation of --password-stdin.
        ("users", "create", "--email", "a@example.org", "--name", "A", "--password", "hunter2222"),
        ("users", "set-password", "a@example.org", "--generate", "--password-stdin"),
    ],
)
async def test_a_wrong_command_line_is_2_with_the_usage(sqlite_url: str, arguments: tuple[str, ...]) -> None:
    ran = await auth(sqlite_url, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "usage: python -m auth" in ran.err


async def test_a_bad_setting_is_2_and_a_secret_is_not_repeated() -> None:
    ran = await auth("mysql+aiomysql://nobody:hunter22@127.0.0.1:port/auth", "users", "list")
    assert (ran.code, ran.err) == (2, "AUTH_DATABASE_URL=(hidden): is not a valid URL\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("migrate", "keys", "users")),
        (("keys",), ("rotate", "list", "retire")),
        (("keys", "retire"), ("KID", "within 5 seconds")),
        (("users",), ("create", "list", "disable", "enable", "delete", "set-password")),
        (("users", "create"), ("--email", "--name", "--password-stdin", "--generate", "TIDEGATE_PASSWORD")),
    ],
)
async def test_help_tells_every_command(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    ran = await auth("", *arguments, "--help")
    assert ran.code == 0
    told = " ".join(ran.out.split())
    assert all(word in told for word in words), told
