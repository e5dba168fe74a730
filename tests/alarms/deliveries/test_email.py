"""Notifications by e-mail, from the change of an alarm to a real SMTP server, and what the ledger says of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import insert, select, update

from alarms.deliveries.ledger import GIVE_UP_AFTER_MS, MAX_AN_HOUR
from alarms.deliveries.sender import DeliverySender, lanes
from alarms.deliveries.store import Delivery, DeliveryStore
from alarms.listing import AlarmListing
from alarms.mail.channel import EmailChannel
from alarms.mail.confirmations import Confirmations
from alarms.mail.mailer import Mailer
from alarms.mail.server import Sender, SmtpServer, parse_smtp_url
from alarms.metrics import AlarmsMetrics
from database.alarm_tables import alarm_deliveries
from database.connection import Database
from database.tables import devices, users
from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.alarms.evaluation.leading import HOOK, ends, fires, leading, stored_rule
from tests.alarms.mail.confirming import EMAIL, confirmed
from tests.alarms.mail.mail_server import MailServer
from tests.alarms.rows import rows
from tests.auth.rows import change

FROM = Sender("alarms@tidegate.test", "Tidegate")


class Webhooks:
    """Takes webhooks at once."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def send(self, delivery: Delivery, sealed: tuple[str, ...]) -> str:
        self.taken.append(delivery.owner)
        return "200"


@asynccontextmanager
async def sending(
    database: Database, confirmations: Confirmations, server: SmtpServer | None, webhooks: Webhooks | None = None
) -> AsyncIterator[None]:
    metrics = AlarmsMetrics(CollectorRegistry())
    mailer = None if server is None else Mailer(server, FROM, metrics)
    channels = lanes(webhooks or Webhooks(), EmailChannel(mailer, confirmations))
    async with DeliverySender(DeliveryStore(database), channels, metrics, history_ms=2**40).sending():
        yield


async def ledger(url: str) -> list[dict[str, Any]]:
    return await rows(url, select(alarm_deliveries).order_by(alarm_deliveries.c.id))


async def until(url: str, *expected: tuple[str, str | None, int]) -> list[dict[str, Any]]:
    """Wait until the ledger has these states, last statuses and attempts; return its rows."""
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = await ledger(url)
        return sorted((one["state"], one["last_status"], one["attempts"]) for one in found) == sorted(expected)

    await eventually(are_there, f"the ledger has {expected}")
    return found


async def make_due(url: str) -> None:
    await change(url, update(alarm_deliveries).values(due_at_ms=0))


async def test_each_change_is_mailed_to_its_owner(database: Database, database_url: str) -> None:
    confirmations = await confirmed(database, "ada", "bob")
    device = {"owner_id": "ada", "id": "press", "name": "press-1", "sensor_type": "temperature", "location": "{}"}
    await change(database_url, insert(devices).values(device | {"gen": 0, "created_at_ms": 0}))
    mine = await stored_rule(database, name="hot", **EMAIL)
    bobs = await stored_rule(database, "bob", name="bobs", **EMAIL)
    async with leading(database) as store, MailServer.listening() as mail:
        (recorded,) = await store.commit([fires(mine, 1)])
        await AlarmListing(database).acknowledge("ada", recorded.alarm_id)
        await store.commit([ends(mine, 2), fires(bobs, 1)])
        async with sending(database, confirmations, parse_smtp_url(mail.url)):
            found = await until(database_url, *([("delivered", "250", 1)] * 4))
    assert {(one["kind"], one["target"]) for one in found} == {
        ("email", "ada@example.org"), ("email", "bob@example.org"),
    }  # fmt: skip
    assert sorted((taken.recipients[0], str(taken.message["Subject"])) for taken in mail.taken) == [
        ("ada@example.org", "[warning] hot: acknowledged (press-1)"),
        ("ada@example.org", "[warning] hot: firing (press-1)"),
        ("ada@example.org", "[warning] hot: ok (press-1)"),
        ("bob@example.org", "[warning] bobs: firing (press)"),
    ]
    assert {str(taken.message["Message-ID"]) for taken in mail.taken} == {
        f"<{one['id']}@tidegate.test>" for one in found
    }


async def test_what_is_refused_for_good_is_dead_at_once_and_can_be_replayed(
    database: Database, database_url: str
) -> None:
    confirmations = await confirmed(database, "ada")
    rule = await stored_rule(database, **EMAIL)
    async with leading(database) as store, MailServer.listening() as mail:
        mail.to_recipient = ["550 no such user, says the server"]
        await store.commit([fires(rule, 1)])
        async with sending(database, confirmations, parse_smtp_url(mail.url)):
            (dead,) = await until(database_url, ("dead", "550", 1))
            await DeliveryStore(database).replay("ada", dead["id"], GIVE_UP_AFTER_MS)
            await until(database_url, ("delivered", "250", 2))
    (taken,) = mail.taken
    assert taken.message["Message-ID"] == f"<{dead['id']}@tidegate.test>"


async def test_what_is_refused_for_now_is_sent_again_with_the_same_id(database: Database, database_url: str) -> None:
    confirmations = await confirmed(database, "ada")
    rule = await stored_rule(database, **EMAIL)
    async with leading(database) as store, MailServer.listening() as mail:
        mail.to_recipient, mail.to_data = ["451 greylisted"], ["421 closing"]
        await store.commit([fires(rule, 1)])
        async with sending(database, confirmations, parse_smtp_url(mail.url)):
            (waiting,) = await until(database_url, ("pending", "451", 1))
            assert waiting["due_at_ms"] > waiting["created_at_ms"]
            await make_due(database_url)
            await until(database_url, ("pending", "421", 2))
            mail.drops = True
            await make_due(database_url)
            await until(database_url, ("pending", "connection", 3))
            mail.drops = False
            await make_due(database_url)
            await until(database_url, ("delivered", "250", 4))
    assert [str(taken.message["Message-ID"]) for taken in mail.taken] == [f"<{waiting['id']}@tidegate.test>"]


async def test_a_server_that_is_away_is_tried_again(database: Database, database_url: str) -> None:
    confirmations = await confirmed(database, "ada")
    rule, port = await stored_rule(database, **EMAIL), free_port()
    async with leading(database) as store:
        await store.commit([fires(rule, 1)])
    async with sending(database, confirmations, parse_smtp_url(f"smtp://127.0.0.1:{port}")):
        await until(database_url, ("pending", "connection", 1))
        async with MailServer.listening(port=port):
            await make_due(database_url)
            await until(database_url, ("delivered", "250", 2))


async def test_a_server_that_hangs_stops_no_webhook(database: Database, database_url: str) -> None:
    confirmations = await confirmed(database, "ada", "bob")
    both = {"notify": [*EMAIL["notify"], *HOOK["notify"]]}
    rules = [await stored_rule(database, owner, **both) for owner in ("ada", "bob")]
    webhooks = Webhooks()
    async with leading(database) as store, MailServer.listening() as mail:
        mail.hangs = True
        await store.commit([fires(rule, at, f"press-{at}") for rule in rules for at in range(20)])
        async with sending(database, confirmations, parse_smtp_url(mail.url), webhooks):

            async def are_there() -> bool:
                return len(webhooks.taken) == 40

            await eventually(are_there, "every webhook is called, its owner's as well")
            assert mail.connections <= 20
        assert mail.taken == []


@pytest.mark.parametrize("how", ["another address", "never confirmed", "server off"])
async def test_what_may_not_be_mailed_any_more_is_dead(database: Database, database_url: str, how: str) -> None:
    confirmations = await confirmed(database, *([] if how == "never confirmed" else ["ada"]))
    rule = await stored_rule(database, **EMAIL)
    async with leading(database) as store, MailServer.listening() as mail:
        await store.commit([fires(rule, 1)])
        if how == "another address":
            values = {"email": "mallory@example.org"}
            await change(database_url, update(users).where(users.c.id == "ada").values(values))
            await store.commit([ends(rule, 2)])
        server = None if how == "server off" else parse_smtp_url(mail.url)
        async with sending(database, confirmations, server):
            status = "email_off" if server is None else "email_unconfirmed"
            await until(database_url, *([("dead", status, 1)] * (2 if how == "another address" else 1)))
        assert mail.connections == 0


async def test_what_was_confirmed_later_is_not_sent_to_an_address_of_before(
    database: Database, database_url: str
) -> None:
    await confirmed(database, "ada")
    rule = await stored_rule(database, **EMAIL)
    async with leading(database) as store, MailServer.listening() as mail:
        await store.commit([fires(rule, 1)])
        other = update(users).where(users.c.id == "ada").values(email="ada@elsewhere.example")
        await change(database_url, other)
        async with database.begin() as connection:
            await connection.exec_driver_sql("DELETE FROM alarm_emails")
        confirmations = await confirmed(database, "ada")
        await store.commit([ends(rule, 2)])
        async with sending(database, confirmations, parse_smtp_url(mail.url)):
            await until(database_url, ("dead", "email_unconfirmed", 1), ("delivered", "250", 1))
    assert [taken.recipients for taken in mail.taken] == [["ada@elsewhere.example"]]


async def test_beyond_the_bound_an_hour_there_is_one_mail(database: Database, database_url: str) -> None:
    confirmations = await confirmed(database, "ada")
    rule = await stored_rule(database, **EMAIL)
    async with leading(database) as store, MailServer.listening() as mail:
        await store.commit([fires(rule, at, f"press-{at}") for at in range(MAX_AN_HOUR + 5)])
        await make_due(database_url)
        async with sending(database, confirmations, parse_smtp_url(mail.url)):
            await until(database_url, *([("delivered", "250", 1)] * (MAX_AN_HOUR + 1)))
    digests = [taken for taken in mail.taken if "more changes" in taken.message["Subject"]]
    assert [taken.message["Subject"] for taken in digests] == ["[warning] hot: 5 more changes"]


async def test_mails_go_out_side_by_side(database: Database, database_url: str) -> None:
    """A slow server holds up one mail, not those behind it."""
    confirmations = await confirmed(database, "ada", "bob")
    rules = [await stored_rule(database, owner, **EMAIL) for owner in ("ada", "bob")]
    async with leading(database) as store, MailServer.listening() as mail:
        mail.hangs = True
        await store.commit([fires(rule, at, f"press-{at}") for rule in rules for at in range(3)])
        async with sending(database, confirmations, parse_smtp_url(mail.url)):

            async def are_all_asked() -> bool:
                return mail.connections == 6

            await eventually(are_all_asked, "all six are under way at once")
