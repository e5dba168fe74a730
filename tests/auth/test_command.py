"""The operators' commands, as processes of their own beside a running service."""

import asyncio
import base64
import os
import sys

import msgspec
import pytest

from runtime.tokens import KeySet, TokenVerifier
from tests.auth.service import PASSWORD, SECRET, Client, make_settings, running

OPERATORS_PASSWORD = "set by an operator"


async def auth(url: str, *arguments: str, stdin: str = "", **variables: str) -> tuple[int, str, str]:
    """Run `python -m auth` and return its exit code, its output and what it logged."""
    it = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "auth", *arguments),
        env={"PATH": os.environ["PATH"], "AUTH_DATABASE_URL": url, "BCRYPT_COST": "4"} | variables,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await it.communicate(stdin.encode())
    return it.returncode or 0, out.decode(), err.decode()


async def keys(url: str, *arguments: str) -> tuple[int, str, str]:
    return await auth(url, "keys", *arguments, SIGNING_KEY_SECRET=SECRET)


async def kid_of_a_new_token(client: Client) -> str:
    token = (await client.log_in()).json["accessToken"]
    assert (await client.get("/user/token", token=token)).status == 200
    header: dict[str, str] = msgspec.json.decode(_unpadded(token.split(".")[0]))
    return header["kid"]


def _unpadded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def test_a_rotation_needs_no_restart_and_drops_nobody(database_url: str) -> None:
    async with running(make_settings(database_url)) as first, running(make_settings(database_url)) as second:
        old_token = await first.new_user()
        verifier = TokenVerifier(KeySet(first.service.jwks))
        await verifier.verify(old_token)
        old_kid = await kid_of_a_new_token(first)
        code, out, err = await keys(database_url, "rotate")
        assert code == 0, err
        new_kid = out.strip()
        assert new_kid != old_kid
        async with asyncio.timeout(5):
            for replica in (first, second):
                while await kid_of_a_new_token(replica) != new_kid:
                    await asyncio.sleep(0.05)
        for replica in (first, second):
            document = await replica.service.jwks()
            assert [key["kid"] for key in document["keys"]] == [old_kid, new_kid]
            assert (await replica.get("/user/token", token=old_token)).status == 200
        await verifier.verify(old_token)

        assert (await keys(database_url, "retire", new_kid))[0] == 1, "the key that signs"
        code, _, err = await keys(database_url, "retire", old_kid)
        assert code == 0, err
        await asyncio.sleep(0.25)  # JWKS_AGE_S
        assert [key["kid"] for key in (await second.service.jwks())["keys"]] == [new_kid]


async def test_keys_are_listed_with_what_they_do(sqlite_url: str) -> None:
    assert (await auth(sqlite_url, "migrate"))[0] == 0
    first, second = (await keys(sqlite_url, "rotate"))[1].strip(), (await keys(sqlite_url, "rotate"))[1].strip()
    listed = msgspec.json.decode((await keys(sqlite_url, "list", "--json"))[1])
    assert [(key["number"], key["kid"], key["state"]) for key in listed] == [
        (1, first, "verifying"),
        (2, second, "signing"),
    ]
    assert listed[0]["retiresAt"] is not None
    assert second in (await keys(sqlite_url, "list"))[1]


async def test_two_rotations_at_once_leave_one_key_that_signs(database_url: str) -> None:
    async with running(make_settings(database_url)) as client:
        done = await asyncio.gather(*(keys(database_url, "rotate") for _ in range(3)))
        assert any(code == 0 for code, _, _ in done)
        for code, _, err in done:
            assert code == 0 or "faster" in err, err
        assert len((await client.service.jwks())["keys"]) == 1 + sum(code == 0 for code, _, _ in done)


async def test_another_secret_cannot_rotate(sqlite_url: str) -> None:
    await auth(sqlite_url, "migrate")
    await keys(sqlite_url, "rotate")
    code, _, err = await auth(sqlite_url, "keys", "rotate", SIGNING_KEY_SECRET="another secret altogether")
    assert (code, "SIGNING_KEY_SECRET does not open" in err) == (1, True)


async def test_operators_run_accounts_where_nobody_may_sign_up(database_url: str) -> None:
    async def users(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        return await auth(database_url, "users", *arguments, stdin=stdin)

    who = ("--email", "ada@example.org", "--name", "Ada")
    async with running(make_settings(database_url, signup="closed")) as client:
        assert (await client.sign_up()).status == 403
        code, _, err = await users("create", *who, "--password-stdin", stdin=PASSWORD + "\n")
        assert code == 0, err
        assert "operator" in err
        assert PASSWORD not in err
        token = (await client.log_in()).json["accessToken"]
        assert (await users("create", *who, "--password-stdin", stdin=PASSWORD + "\n"))[0] == 1

        listed = (await users("list", "--json"))[1].splitlines()
        assert [msgspec.json.decode(line)["email"] for line in listed] == ["ada@example.org"]

        code, _, err = await users("set-password", "ADA@example.org", "--password-stdin", stdin=OPERATORS_PASSWORD)
        assert code == 0, err
        assert (await client.get("/user/token", token=token)).status == 401
        token = (await client.log_in(password=OPERATORS_PASSWORD)).json["accessToken"]

        assert (await users("disable", "ada@example.org"))[0] == 0
        assert (await client.get("/user/token", token=token)).status == 401
        assert (await client.log_in(password=OPERATORS_PASSWORD)).status == 401
        assert (await users("enable", "ada@example.org"))[0] == 0
        assert (await client.log_in(password=OPERATORS_PASSWORD)).status == 200

        assert (await users("delete", "ada@example.org"))[0] == 1, "nobody confirmed it"
        assert (await users("delete", "ada@example.org", "--yes"))[0] == 0
        assert (await client.log_in(password=OPERATORS_PASSWORD)).status == 401
        assert (await users("delete", "ada@example.org", "--yes"))[0] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "--email", "no address", "--name", "Ada", "--generate"), "email"),
        (("create", "--email", "a@example.org", "--name", "\n", "--generate"), "name"),
        (("create", "--email", "a@example.org", "--name", "Ada", "--password-stdin"), "at least 8 characters"),
        (("create", "--email", "a@example.org", "--name", "Ada"), "--password-stdin"),
        (("disable", "nobody@example.org"), "has no account"),
    ],
)
async def test_what_cannot_be_done_is_told_in_a_line(sqlite_url: str, arguments: tuple[str, ...], says: str) -> None:
    await auth(sqlite_url, "migrate")
    code, out, err = await auth(sqlite_url, "users", *arguments, stdin="short\n")
    assert code == 1
    assert says in err
    assert len(err.strip().splitlines()) == 1, err
    assert out == ""


async def test_a_generated_password_is_printed_and_serves(sqlite_url: str) -> None:
    await auth(sqlite_url, "migrate")
    _, out, _ = await auth(sqlite_url, "users", "create", "--email", "a@example.org", "--name", "A", "--generate")
    async with running(make_settings(sqlite_url)) as client:
        assert (await client.log_in("a@example.org", out.strip())).status == 200


async def test_a_database_that_is_away_is_told_in_a_line(sqlite_url: str) -> None:
    url = "mysql+aiomysql://nobody:nothing@127.0.0.1:9/auth"
    code, _, err = await auth(url, "users", "list")
    assert code == 1
    assert "database does not answer" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [("keys",), ("users", "promote"), ("keys", "retire"), ("users", "create")])
async def test_a_wrong_command_line_is_2_with_the_usage(sqlite_url: str, arguments: tuple[str, ...]) -> None:
    code, _, err = await auth(sqlite_url, *arguments)
    assert code == 2
    assert "usage: python -m auth" in err


async def test_help_tells_every_command(sqlite_url: str) -> None:
    code, out, _ = await auth(sqlite_url, "--help")
    assert code == 0
    assert all(word in out for word in ("migrate", "keys", "users"))
