import asyncio
import hashlib
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import create_async_engine

from database.tables import refresh_tokens, users
from tests.auth.service import PASSWORD, Client, make_settings, running


async def test_a_sign_up_answers_the_account_without_its_secrets(client: Client) -> None:
    answer = await client.sign_up("Ada@Example.org", name="Ada Lovelace ✓")
    assert answer.status == 201
    assert set(answer.json) == {"id", "name", "email", "createdAt"}
    assert (answer.json["name"], answer.json["email"]) == ("Ada Lovelace ✓", "Ada@Example.org")
    assert answer.json["createdAt"].endswith("Z")
    assert len(answer.json["createdAt"]) == len("2026-01-01T00:00:00.000Z")
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.metric("tidegate_auth_signups_total", outcome="created") == 1


async def test_an_address_has_one_account_however_it_is_written(client: Client) -> None:
    assert (await client.sign_up("ada@example.org")).status == 201
    answer = await client.sign_up("ADA@EXAMPLE.org")
    assert answer.status == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.json["title"], answer.json["code"]) == ("Conflict", "taken")
    assert client.metric("tidegate_auth_signups_total", outcome="taken") == 1


async def test_addresses_that_look_alike_are_different(client: Client) -> None:
    for email in ("ada@example.org", "ada.@example.org", "ada+1@example.org", "_da@example.org"):
        assert (await client.sign_up(email)).status == 201


async def test_of_sign_ups_at_once_one_wins(client: Client) -> None:
    answers = await asyncio.gather(*(client.sign_up() for _ in range(6)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 5


async def test_a_closed_server_takes_no_sign_ups(database_url: str) -> None:
    async with running(make_settings(database_url, signup="closed")) as client:
        answer = await client.sign_up()
        assert (answer.status, answer.json["code"]) == (403, "signup_closed")
        assert (await client.log_in()).status == 401


async def test_a_sign_up_names_all_that_is_wrong(client: Client) -> None:
    answer = await client.post("/user/signup", {"name": "", "email": "nobody", "role": "admin"})
    assert answer.status == 422
    assert answer.fields == {"name": "invalid", "email": "invalid", "role": "unknown", "password": "missing"}
    assert all(error["message"] for error in answer.json["errors"])


async def test_an_answer_does_not_grow_with_the_nonsense_in_a_body(client: Client) -> None:
    answer = await client.post("/user/signup", {f"{n}" * 500: n for n in range(40)})
    assert answer.status == 422
    assert len(answer.raw) < 4000


WRONG_FIELDS: dict[str, list[Any]] = {
    "name": [
        *("", "x" * 201, "x" * 10_000, None, 7, ["Ada"], {"$ne": ""}),
        *("Ada\x00", "Ada\n", "\x1fAda", "A\x7fda", "Ada\x85"),
    ],
    "email": [
        *("", "ada", "@example.org", "ada@", "a@b@c", "a b@c.org", None, 7, [], {}),
        *("x" * 65 + "@example.org", "a@" + ".".join(["x" * 63] * 4), "é@example.org", "x" * 10_000),
        *("ada@-example.org", "ada@example.org\n", "ada@example.org\x00", "a@b..org"),
    ],
    "password": ["", "1234567", "x" * 1025, "é" * 513, None, 12345678, ["x" * 9], {}],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in WRONG_FIELDS for value in WRONG_FIELDS[field]]
)
async def test_a_sign_up_with_a_wrong_field_names_it(sqlite_client: Client, field: str, value: Any) -> None:
    body = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD} | {field: value}
    answer = await sqlite_client.post("/user/signup", body)
    assert (answer.status, list(answer.fields)) == (422, [field])


async def test_names_of_200_characters_and_addresses_of_254_fit(client: Client) -> None:
    email = "x" * 64 + "@" + ".".join(["y" * 63, "y" * 63, "y" * 61])
    assert len(email) == 254
    answer = await client.sign_up(email, name="𝄞" * 200)
    assert answer.status == 201
    assert (answer.json["name"], answer.json["email"]) == ("𝄞" * 200, email)
    assert (await client.log_in(email)).status == 200


async def test_a_log_in_gives_a_session(client: Client) -> None:
    await client.sign_up()
    answer = await client.log_in("ADA@example.org")
    assert answer.status == 200
    assert set(answer.json) == {"accessToken", "tokenType", "expiresIn", "refreshToken"}
    assert (answer.json["tokenType"], answer.json["expiresIn"]) == ("Bearer", 3600)
    assert len(answer.json["refreshToken"]) >= 43
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.metric("tidegate_auth_logins_total", outcome="ok") == 1


async def test_refresh_tokens_are_stored_hashed_and_expired_ones_go(client: Client, database_url: str) -> None:
    await client.sign_up()
    first = (await client.log_in()).json["refreshToken"]
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        row = (await connection.execute(select(refresh_tokens))).one()
        assert row.token_hash == hashlib.sha256(first.encode()).hexdigest()
        assert row.expires_at_ms - row.created_at_ms == 30 * 86400 * 1000
        await connection.execute(update(refresh_tokens).values(expires_at_ms=row.created_at_ms - 3600 * 1000))
    await client.log_in()
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(refresh_tokens)) == 1
    await engine.dispose()


@pytest.mark.parametrize("length", [8, 72, 73, 1024])
async def test_a_long_password_is_checked_to_its_last_byte(client: Client, length: int) -> None:
    password = ("rh3umlwp" * 128)[:length]
    assert (await client.sign_up(password=password)).status == 201
    assert (await client.log_in(password=password)).status == 200
    for wrong in (password[:-1], password[:-1] + "q", password + "p"):
        assert (await client.log_in(password=wrong)).status == 401


async def test_unknown_user_wrong_password_and_damaged_hash_answer_alike(client: Client, database_url: str) -> None:
    await client.sign_up("ada@example.org")
    await client.sign_up("bob@example.org")
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(
            update(users).where(users.c.email == "bob@example.org").values(password_hash="damaged")
        )
    await engine.dispose()
    answers = [
        await client.log_in("ada@example.org", "a wrong password"),
        await client.log_in("eve@example.org", PASSWORD),
        await client.log_in("bob@example.org", PASSWORD),
        await client.log_in("' OR 1=1 --", PASSWORD),
        await client.log_in("", ""),
        await client.log_in("é@example.org", PASSWORD),
        await client.log_in("ada@example.org", "x" * 5000),
    ]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.raw for answer in answers}) == 1
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert client.metric("tidegate_auth_logins_total", outcome="failed") == 7


@pytest.mark.parametrize(
    "change", [{"email": "x" * 255}, {"email": "a\x00@b.org"}, {"email": ["a@b.org"]}, {"password": 7}, {"extra": 1}]
)
async def test_a_log_in_of_the_wrong_form_names_the_field(client: Client, change: dict[str, Any]) -> None:
    answer = await client.post("/user/login", {"email": "ada@example.org", "password": PASSWORD} | change)
    assert (answer.status, list(answer.fields)) == (422, list(change))


async def test_log_ins_beyond_the_queue_get_503(database_url: str) -> None:
    async with running(make_settings(database_url, bcrypt_cost=10, hash_threads=1, hash_queue=1)) as client:
        answers = await asyncio.gather(*(client.log_in() for _ in range(10)))
        assert {answer.status for answer in answers} == {401, 503}
        busy = next(answer for answer in answers if answer.status == 503)
        assert busy.json["code"] == "busy"
        assert int(busy.headers["Retry-After"]) >= 1
        assert (await client.log_in()).status == 401


async def test_nothing_that_was_typed_reaches_the_tables_in_clear(client: Client, database_url: str) -> None:
    await client.sign_up()
    session = (await client.log_in()).json
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        for table in ("users", "refresh_tokens"):
            shown = repr((await connection.execute(text(f"SELECT * FROM {table}"))).all())  # noqa: S608
            assert PASSWORD not in shown
            assert session["refreshToken"] not in shown
            assert session["accessToken"] not in shown
    await engine.dispose()
