"""Operators manage accounts while sign-up is closed."""

import asyncio
import os
import pty
import sys

import msgspec
import pytest
from sqlalchemy import insert

from auth.migrate import migrate
from database.connection import open_database
from database.ids import new_id
from database.tables import users as user_table
from tests.auth.processes import Ran, auth
from tests.auth.service import PASSWORD, make_settings, running

OPERATORS_PASSWORD = "set by an operator"
ADA = ("--email", "ada@example.org", "--name", "Ada")


async def test_operators_run_accounts_where_nobody_may_sign_up(database_url: str) -> None:
    async def users(*arguments: str, stdin: str = "", **variables: str) -> Ran:
        return await auth(database_url, "users", *arguments, stdin=stdin, **variables)

    async with running(make_settings(database_url, signup="closed")) as client:
        assert (await client.sign_up()).status == 403
        created = await users("create", *ADA, "--password-stdin", stdin=PASSWORD + "\n", LOGNAME="olga")
        assert (created.code, created.out) == (0, ""), created.err
        assert "by=operator system_user=olga" in created.err
        assert PASSWORD not in created.err
        token = (await client.log_in()).json["accessToken"]
        again = await users("create", *ADA, TIDEGATE_PASSWORD=PASSWORD)
        assert (again.code, again.err) == (1, "ada@example.org has an account.\n")

        made = (await client.post("/keys", {"name": "export", "scope": ["readings:read"]}, token=token)).json
        by_stdin = ("ADA@example.org", "--password-stdin", "--end-keys")
        changed = await users("set-password", *by_stdin, stdin=OPERATORS_PASSWORD)
        assert changed.code == 0, changed.err
        assert (await client.get("/user/token", token=made["key"])).status == 401
        assert (await client.get("/user/token", token=token)).status == 401
        assert (await client.log_in()).status == 401
        token = (await client.log_in(password=OPERATORS_PASSWORD)).json["accessToken"]

        assert (await users("disable", "ada@example.org")).code == 0
        assert (await client.get("/user/token", token=token)).status == 401
        assert (await client.log_in(password=OPERATORS_PASSWORD)).status == 401
        listed = msgspec.json.decode((await users("list", "--json")).out)
        assert (listed["email"], listed["disabledAt"] is None) == ("ada@example.org", False)
        assert (await users("enable", "ada@example.org")).code == 0
        assert (await client.log_in(password=OPERATORS_PASSWORD)).status == 200

        for typed in ("", "eve@example.org\n"):
            refused = await users("delete", "ada@example.org", stdin=typed)
            assert (refused.code, "nothing was deleted" in refused.err) == (1, True)
        assert (await client.log_in(password=OPERATORS_PASSWORD)).status == 200
        assert (await users("delete", "ada@example.org", stdin="ada@example.org\n")).code == 0
        assert (await client.log_in(password=OPERATORS_PASSWORD)).status == 401
        gone = await users("delete", "ada@example.org", "--yes")
        assert (gone.code, gone.err) == (1, "ada@example.org has no account.\n")


async def test_every_account_is_listed_whatever_the_locale_and_however_many(database_url: str) -> None:
    await migrate(database_url)
    rows = [
        {
            "id": new_id(),
            "name": "Łucja",
            "email": f"{number}@example.org",
            "email_key": f"{number}@example.org",
            "password_hash": "x",
            "gen": 0,
            "created_at_ms": number,
        }
        for number in range(1001)
    ]
    async with (
        open_database(database_url, connections=1, timeout_s=10) as database,
        database.begin() as connection,
    ):
        await connection.execute(insert(user_table), rows)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = await auth(database_url, "users", "list", **ascii_only)
    assert ran.code == 0, ran.err
    head, *lines = ran.out.splitlines()
    assert head.split() == ["id", "created", "state", "email", "name"]
    assert [line.split()[3] for line in lines] == [row["email"] for row in rows]
    assert lines[0].endswith("Łucja")


async def test_a_password_is_asked_for_twice_on_the_terminal(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    for typed, code in (((PASSWORD, OPERATORS_PASSWORD), 1), ((PASSWORD, PASSWORD), 0)):
        ours, theirs = pty.openpty()
        it = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "auth", "users", "create", *ADA),
            env={"PATH": os.environ["PATH"], "AUTH_DATABASE_URL": sqlite_url, "BCRYPT_COST": "4"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        said = b""
        async with asyncio.timeout(60):
            for prompt, answer in zip((b"Password: ", b"Again: "), typed, strict=True):
                while prompt not in said:
                    said += await asyncio.to_thread(os.read, ours, 1000)
                os.write(ours, answer.encode() + b"\n")
            assert await it.wait() == code
        said += os.read(ours, 1000)
        os.close(ours)
        assert PASSWORD.encode() not in said, "it is not shown"
    async with running(make_settings(sqlite_url)) as client:
        assert (await client.log_in()).status == 200


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (("create", "--email", "no address", "--name", "Ada", "--generate"), b"", "not an e-mail address"),
        (("create", "--email", "a@example.org", "--name", "\n", "--generate"), b"", "a name has 1 to 200 characters"),
        (("create", *ADA, "--password-stdin"), b"short\n", "at least 8 characters"),
        (("create", *ADA, "--password-stdin"), b"password1\n", "among the first that attackers try"),
        (("create", *ADA, "--password-stdin"), b"ada@example.org\n", "must not be the name"),
        (("create", *ADA, "--password-stdin"), b"\xff\xfe12345678\n", "not UTF-8"),
        (("create", *ADA), b"", "--password-stdin"),
        (("disable", "nobody@example.org"), b"", "has no account"),
        (("set-password", "nobody@example.org", "--generate"), b"", "has no account"),
    ],
)
async def test_what_cannot_be_done_is_told_in_a_line(
    sqlite_url: str, arguments: tuple[str, ...], stdin: bytes, says: str
) -> None:
    await migrate(sqlite_url)
    ran = await auth(sqlite_url, "users", *arguments, stdin=stdin)
    assert (ran.code, ran.out) == (1, "")
    assert says in ran.err
    assert len(ran.err.splitlines()) == 1, ran.err


async def test_a_generated_password_is_printed_and_serves(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    ran = await auth(sqlite_url, "users", "create", *ADA, "--generate")
    assert ran.out.strip() not in ran.err
    async with running(make_settings(sqlite_url)) as client:
        assert (await client.log_in(password=ran.out.strip())).status == 200
