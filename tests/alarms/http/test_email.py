"""The address of the account: confirmed with a mailed code by its owner alone, and nothing else is mailed to."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from alarms.mail.confirmations import BETWEEN_CODES_MS, DAY_MS, MAX_CODES_A_DAY, MAX_WRONG_TRIES
from database.alarm_tables import alarm_emails
from database.connection import Database
from database.tables import users
from testing.servers.ports import free_port
from tests.alarms.http.conftest import SCOPE, Client, serving
from tests.alarms.mail.mail_server import Mail, MailServer
from tests.alarms.making import GIVEN
from tests.alarms.rows import rows
from tests.auth.rows import change

EMAIL_RULE = GIVEN | {"notify": [{"kind": "email"}]}
FROM = "Tidegate <alarms@tidegate.test>"
UNCONFIRMED = {"available": True, "email": "ada@example.org", "confirmed": False}
CONFIRMED = UNCONFIRMED | {"confirmed": True}
WRONG = "AAAAAAAAAA"


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    async with MailServer.listening() as server:
        yield server


@pytest.fixture
async def mailing(database_url: str, tmp_path: Path, mail_server: MailServer) -> AsyncIterator[Client]:
    async with serving(database_url, tmp_path, smtp_url=mail_server.url, email_from=FROM) as client:
        yield client


def code_in(mail: Mail) -> str:
    (found,) = re.findall(r"^[0-9A-Z]{10}$", mail.text.replace("\r", ""), re.MULTILINE)
    return str(found)


async def get_code(client: Client, server: MailServer, owner: str = "ada") -> str:
    status, answer = await client.call("POST", "/alarms/email/confirmation", owner=owner)
    assert status == 202, answer
    assert server.taken[-1].recipients == [f"{owner}@example.org"]
    return code_in(server.taken[-1])


async def let_pass(client: Client, ms: int) -> None:
    """Make everything that a row says as much older."""
    found = await rows(client.database_url, select(alarm_emails))
    for row in found:
        times = [str(int(time) - ms) for time in re.findall(r"\d+", row["sent_ms"])]
        values: dict[str, Any] = {"tried_at_ms": row["tried_at_ms"] - ms, "sent_ms": f"[{','.join(times)}]"}
        values["code_until_ms"] = row["code_until_ms"] and row["code_until_ms"] - ms
        of_owner = alarm_emails.c.owner_id == row["owner_id"]
        await change(client.database_url, update(alarm_emails).where(of_owner).values(values))


async def confirm(client: Client, code: str, owner: str = "ada") -> tuple[int, Any]:
    return await client.call("POST", "/alarms/email/confirm", {"code": code}, owner=owner)


async def refused(client: Client, code: str, *, owner: str = "ada") -> str:
    """Return the code of the refusal."""
    status, answer = await confirm(client, code, owner)
    assert (status, [one["field"] for one in answer["errors"]]) == (422, ["code"])
    assert code not in answer["detail"]
    return str(answer["code"])


async def test_an_address_is_confirmed_with_its_code_and_then_a_rule_may_name_it(
    mailing: Client, mail_server: MailServer
) -> None:
    assert await mailing.call("GET", "/alarms/email") == (200, UNCONFIRMED)
    status, answer = await mailing.call("POST", "/alarms/rules", EMAIL_RULE)
    assert (status, answer["code"]) == (409, "email_unconfirmed")
    code = await get_code(mailing, mail_server)
    (mail,) = mail_server.taken
    assert mail.sender == "alarms@tidegate.test"
    assert (mail.message["From"], mail.message["To"]) == (FROM, "ada@example.org")
    status, answer = await mailing.call("GET", "/alarms/email")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", answer.pop("sentAt"))
    assert answer == UNCONFIRMED
    typed = f" {code[:5].lower()}-{code[5:]} "
    assert await confirm(mailing, typed) == (200, CONFIRMED)
    assert await confirm(mailing, code) == (200, CONFIRMED), "the answer was lost, and it is asked again"
    assert await mailing.call("GET", "/alarms/email") == (200, CONFIRMED)
    assert (await mailing.call("POST", "/alarms/rules", EMAIL_RULE))[0] == 201
    status, answer = await mailing.call("POST", "/alarms/email/confirmation")
    assert (status, answer["code"]) == (409, "already_confirmed")


async def test_a_confirmation_is_its_owners(mailing: Client, mail_server: MailServer) -> None:
    code = await get_code(mailing, mail_server)
    assert await refused(mailing, code, owner="bob") == "code_expired", "bob was mailed none"
    bobs = await get_code(mailing, mail_server, "bob")
    assert await refused(mailing, code, owner="bob") == "wrong_code"
    assert (await confirm(mailing, bobs, "bob"))[0] == 200
    assert await mailing.call("GET", "/alarms/email", owner="bob") == (200, CONFIRMED | {"email": "bob@example.org"})
    assert (await mailing.call("GET", "/alarms/email"))[1]["confirmed"] is False
    assert (await mailing.call("POST", "/alarms/rules", EMAIL_RULE))[0] == 409


async def test_a_change_to_e_mail_is_refused_as_the_making(mailing: Client, mail_server: MailServer) -> None:
    _, rule = await mailing.call("POST", "/alarms/rules", GIVEN)
    path = f"/alarms/rules/{rule['id']}"
    status, answer = await mailing.call("PATCH", path, {"notify": [{"kind": "email"}]})
    assert (status, answer["code"]) == (409, "email_unconfirmed")
    assert (await mailing.call("GET", path))[1]["notify"] == []
    await confirm(mailing, await get_code(mailing, mail_server))
    assert (await mailing.call("PATCH", path, {"notify": [{"kind": "email"}]}))[0] == 200


async def test_e_mail_has_no_fields_and_stands_once_in_a_rule(mailing: Client) -> None:
    for notify, place in (
        ([{"kind": "email", "url": "https://example.org"}], "notify[0].url"),
        ([{"kind": "email", "to": "mallory@example.org"}], "notify[0].to"),
        ([{"kind": "email", "address": "mallory@example.org"}], "notify[0].address"),
        ([{"kind": "email"}, {"kind": "feed"}, {"kind": "email"}], "notify[2]"),
    ):
        status, answer = await mailing.call("POST", "/alarms/rules", GIVEN | {"notify": notify})
        assert status == 422, answer
        assert place.partition("[")[0] in [error["field"].partition("[")[0] for error in answer["errors"]]


async def test_nobody_is_mailed_but_the_account(mailing: Client, mail_server: MailServer) -> None:
    for body in ({"email": "mallory@example.org"}, {"to": "mallory@example.org"}):
        await mailing.call("POST", "/alarms/email/confirmation", body)
        await let_pass(mailing, BETWEEN_CODES_MS)
    assert [mail.recipients for mail in mail_server.taken] == [["ada@example.org"]] * 2


async def test_a_code_can_be_tried_five_times(mailing: Client, mail_server: MailServer) -> None:
    code = await get_code(mailing, mail_server)
    assert [await refused(mailing, WRONG) for _ in range(MAX_WRONG_TRIES)] == ["wrong_code"] * MAX_WRONG_TRIES
    assert await refused(mailing, code) == "code_expired"
    assert "sentAt" not in (await mailing.call("GET", "/alarms/email"))[1]
    await let_pass(mailing, BETWEEN_CODES_MS)
    another = await get_code(mailing, mail_server)
    assert await refused(mailing, code) == "wrong_code", "the one before counts no more"
    assert (await confirm(mailing, another))[0] == 200


async def test_a_code_is_valid_for_a_day(mailing: Client, mail_server: MailServer) -> None:
    code = await get_code(mailing, mail_server)
    await let_pass(mailing, DAY_MS)
    assert await refused(mailing, code) == "code_expired"
    assert "sentAt" not in (await mailing.call("GET", "/alarms/email"))[1]


async def test_one_code_a_minute_and_five_a_day(mailing: Client, mail_server: MailServer) -> None:
    async def retry_after() -> int:
        path = "/alarms/email/confirmation"
        status, headers, answer = await mailing.call_with_headers("POST", path)
        assert (status, answer["code"]) == (429, "rate_limited")
        return int(headers["Retry-After"])

    for _ in range(MAX_CODES_A_DAY):
        await get_code(mailing, mail_server)
        assert 0 < await retry_after() <= 60
        await let_pass(mailing, BETWEEN_CODES_MS)
    assert 80_000 < await retry_after() <= 86_400 - 5 * 60
    assert (await mailing.call("POST", "/alarms/email/confirmation", owner="bob"))[0] == 202, (
        "each owner for themselves"
    )
    await let_pass(mailing, DAY_MS - MAX_CODES_A_DAY * BETWEEN_CODES_MS)
    await get_code(mailing, mail_server)
    assert len(mail_server.taken) == MAX_CODES_A_DAY + 2


async def test_what_comes_at_once_is_counted_one_after_the_other(mailing: Client, mail_server: MailServer) -> None:
    asked = await asyncio.gather(*(mailing.call("POST", "/alarms/email/confirmation") for _ in range(4)))
    assert sorted(status for status, _ in asked) == [202, 429, 429, 429]
    (mail,) = mail_server.taken
    tried = await asyncio.gather(*(refused(mailing, WRONG) for _ in range(MAX_WRONG_TRIES + 3)))
    assert sorted(tried) == ["code_expired"] * 3 + ["wrong_code"] * MAX_WRONG_TRIES
    assert await refused(mailing, code_in(mail)) == "code_expired"


async def test_no_log_has_a_code_or_an_address(
    mailing: Client, mail_server: MailServer, capfd: pytest.CaptureFixture[str]
) -> None:
    mail_server.to_recipient = ["451 ada@example.org is greylisted"]
    await mailing.call("POST", "/alarms/email/confirmation")
    await let_pass(mailing, BETWEEN_CODES_MS)
    code = await get_code(mailing, mail_server)
    await refused(mailing, WRONG)
    await confirm(mailing, code)
    logged = "".join(capfd.readouterr())
    assert "A code was mailed to confirm an e-mail address." in logged
    assert "A wrong code was entered for an e-mail address." in logged
    assert "An e-mail address was confirmed." in logged
    assert not any(text in logged for text in (code, WRONG, "@example.org", "greylisted"))


async def test_what_is_stored_tells_no_code(mailing: Client, mail_server: MailServer) -> None:
    code = await get_code(mailing, mail_server)
    (row,) = await rows(mailing.database_url, select(alarm_emails))
    assert code not in str(row)
    assert re.fullmatch("[0-9a-f]{64}", row["code_hash"])


async def test_with_another_address_it_counts_no_more(mailing: Client, mail_server: MailServer) -> None:
    code = await get_code(mailing, mail_server)
    to = update(users).where(users.c.id == "ada")
    await change(mailing.database_url, to.values(email="ada@elsewhere.example"))
    assert await refused(mailing, code) == "code_expired"
    await change(mailing.database_url, to.values(email="ada@example.org"))
    assert (await confirm(mailing, code))[0] == 200
    await change(mailing.database_url, to.values(email="Ada@example.org"))
    assert (await mailing.call("GET", "/alarms/email"))[1]["confirmed"] is False
    assert (await mailing.call("POST", "/alarms/rules", EMAIL_RULE))[1]["code"] == "email_unconfirmed"


async def test_it_goes_with_the_account(mailing: Client, mail_server: MailServer, database: Database) -> None:
    await get_code(mailing, mail_server)
    await get_code(mailing, mail_server, "bob")
    async with database.begin() as connection:
        await connection.execute(delete(users).where(users.c.id == "ada"))
    assert [row["owner_id"] for row in await rows(mailing.database_url, select(alarm_emails))] == ["bob"]
    for method, path, body in CALLS:
        status, answer = await mailing.call(method, path, body)
        assert (status, answer["code"]) == (401, "revoked"), path


CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/alarms/email", None),
    ("POST", "/alarms/email/confirmation", None),
    ("POST", "/alarms/email/confirm", {"code": WRONG}),
]


async def test_who_may(mailing: Client, mail_server: MailServer) -> None:
    limited = mailing.issuer.api_key(sub="ada", owner="ada", scope=SCOPE, devices=["press"])
    without = mailing.issuer.user(sub="ada", owner="ada", scope="readings:read")
    device = mailing.issuer.device(owner="ada", scope=SCOPE)
    key = mailing.issuer.api_key(sub="ada", owner="ada", scope=SCOPE)
    for token, opened in ((limited, 0), (without, 0), (device, 0), (key, 1)):
        found = [(await mailing.call(method, path, body, token=token))[0] for method, path, body in CALLS]
        assert found == [200, 403, 403][: opened or 0] + [403] * (3 - opened)
    assert mail_server.taken == []


async def test_without_a_server_there_is_none(client: Client) -> None:
    assert await client.call("GET", "/alarms/email") == (200, UNCONFIRMED | {"available": False})
    for method, path, body in (*CALLS[1:], ("POST", "/alarms/rules", EMAIL_RULE)):
        status, answer = await client.call(method, path, body)
        assert (status, answer["code"]) == (409, "email_off"), path
    _, rule = await client.call("POST", "/alarms/rules", GIVEN)
    status, answer = await client.call("PATCH", f"/alarms/rules/{rule['id']}", {"notify": [{"kind": "email"}]})
    assert (status, answer["code"]) == (409, "email_off")


async def test_a_server_that_takes_no_mail_for_the_address(mailing: Client, mail_server: MailServer) -> None:
    mail_server.to_recipient = ["550 I do not know ada", "451 later"]
    status, answer = await mailing.call("POST", "/alarms/email/confirmation")
    assert (status, answer["code"]) == (409, "email_refused")
    assert "ada" not in answer["detail"]
    assert (await mailing.call("POST", "/alarms/email/confirmation"))[0] == 429
    await let_pass(mailing, BETWEEN_CODES_MS)
    status, headers, answer = await mailing.call_with_headers("POST", "/alarms/email/confirmation")
    assert (status, answer["code"], headers["Retry-After"]) == (503, "email_failed", "60")
    (row,) = await rows(mailing.database_url, select(alarm_emails))
    assert len(re.findall(r"\d+", row["sent_ms"])) == 2, "each counts for the day"


async def test_what_cannot_have_been_mailed_does_not_count_for_the_day(database_url: str, tmp_path: Path) -> None:
    away = f"smtp://127.0.0.1:{free_port()}"
    async with serving(database_url, tmp_path, smtp_url=away, email_from=FROM) as client:
        for _ in range(MAX_CODES_A_DAY + 1):
            status, answer = await client.call("POST", "/alarms/email/confirmation")
            assert (status, answer["code"]) == (503, "email_failed")
            assert (await client.call("POST", "/alarms/email/confirmation"))[0] == 429, "but for the minute"
            await let_pass(client, BETWEEN_CODES_MS)
        assert "sentAt" not in (await client.call("GET", "/alarms/email"))[1]
        assert await refused(client, WRONG) == "code_expired"


@pytest.mark.parametrize(
    "body", [{}, {"code": 1}, {"code": ""}, {"code": "x" * 65}, {"code": "a\nb"}, {"code": "x", "a": 1}]
)
async def test_what_is_no_code_is_refused(mailing: Client, body: Any) -> None:
    assert (await mailing.call("POST", "/alarms/email/confirm", body))[0] == 422
