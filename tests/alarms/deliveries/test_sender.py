"""The loop that sends: what becomes of deliveries to receivers that fail, and that one owner's delay nobody else's."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from sqlalchemy import insert, select

from alarms.deliveries import sender as sender_module
from alarms.deliveries import store as store_module
from alarms.deliveries.sender import DeliverySender, Lane
from alarms.deliveries.store import Delivery, DeliveryStore, State
from alarms.metrics import AlarmsMetrics
from alarms.rules.store import RuleStore
from alarms.webhooks.addresses import AddressGuard
from alarms.webhooks.channel import WebhookChannel
from alarms.webhooks.http_client import MAX_ANSWER_BYTES, WebhookClient
from alarms.webhooks.retries import LONGEST_ASKED_S
from alarms.webhooks.secrets import Secrets
from alarms.webhooks.signature import new_secret
from database.alarm_tables import alarm_deliveries
from database.connection import Database
from database.ids import new_id
from runtime.http.listen import listen
from runtime.http.problems import Problem
from runtime.times import now_ms
from testing.waiting import eventually
from tests.alarms.making import definition
from tests.alarms.rows import rows
from tests.auth.rows import change

SECRETS = Secrets("a secret only for tests")
DAY_MS = 86_400_000
OF_OWNER, OF_FAILING = 10, 3
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Deliveries:
    """The ledger, and a rule of each of two owners."""

    url: str
    rules: dict[str, str]

    async def add(self, owner: str, target: str, count: int = 1, **changes: Any) -> list[str]:
        """Make notifications due; return their ids."""
        now = now_ms()
        made = [
            {
                "owner_id": owner, "id": new_id(), "rule_id": self.rules[owner], "alarm_id": "alarm", "kind": "webhook",
                "target": target, "body": "{}", "state": "pending", "attempts": 0, "created_at_ms": now,
                "give_up_at_ms": now + DAY_MS, "due_at_ms": now, "leased_until_ms": 0,
            } | changes
            for _ in range(count)
        ]  # fmt: skip
        await change(self.url, insert(alarm_deliveries).values(made))
        return [str(one["id"]) for one in made]

    async def find(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        return await rows(self.url, select(alarm_deliveries).where(alarm_deliveries.c.id.in_(ids)))

    async def become(self, state: str, ids: Sequence[str], *, attempts: int = 1) -> list[dict[str, Any]]:
        """Return these rows, once all of them are in a state after so many attempts."""

        async def are_there() -> bool:
            return all((one["state"], one["attempts"]) == (state, attempts) for one in await self.find(ids))

        await eventually(are_there, f"they are {state}", 60)
        return await self.find(ids)


@pytest.fixture
async def deliveries(database: Database, database_url: str) -> Deliveries:
    made = {}
    for owner in ("ada", "bob"):
        stored = await RuleStore(database).create(owner, definition(), SECRETS.seal(owner, new_secret()))
        made[owner] = stored.rule.id
    return Deliveries(database_url, made)


@asynccontextmanager
async def sending(
    database: Database, *, timeout_s: float = 30.0, guard: AddressGuard | None = None, max_sending: int = 50
) -> AsyncIterator[DeliverySender]:
    permitting = guard or AddressGuard([ip_network("127.0.0.0/8"), ip_network("::1")])
    async with WebhookClient.opened(permitting, timeout_s=timeout_s) as client:
        metrics = AlarmsMetrics(CollectorRegistry())
        lane = Lane("webhook", WebhookChannel(client, SECRETS), max_sending, OF_OWNER, OF_FAILING)
        sender = DeliverySender(DeliveryStore(database), [lane], metrics, history_ms=DAY_MS)
        async with sender.sending():
            yield sender


@asynccontextmanager
async def receiver(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    async with listen(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


def answering(status: int, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()})

    return handler


async def closing(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(2 * MAX_ANSWER_BYTES // 4096):
        await response.write(b"x" * 4096)
    return response


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        (answering(500), "500"),
        (answering(302, Location="http://127.0.0.1:1/"), "302"),
        (closing, "connection"),
    ],
    ids=["500", "redirect", "closes"],
)
async def test_what_fails_is_due_again_after_a_pause(
    database: Database, deliveries: Deliveries, handler: Handler, status: str
) -> None:
    async with receiver(handler) as url, sending(database):
        ids = await deliveries.add("ada", url)
        (row,) = await deliveries.become("pending", ids)
    assert row["last_status"] == status
    assert row["leased_until_ms"] == 0
    assert row["due_at_ms"] > row["created_at_ms"]


async def test_a_receiver_that_hangs_is_due_again(database: Database, deliveries: Deliveries) -> None:
    ended = asyncio.Event()

    async def hanging(_: web.Request) -> web.Response:
        await ended.wait()
        return web.Response()

    async with receiver(hanging) as url, sending(database, timeout_s=0.3):
        (row,) = await deliveries.become("pending", await deliveries.add("ada", url))
        ended.set()
    assert row["last_status"] == "timeout"


async def test_who_answers_without_end_was_told(database: Database, deliveries: Deliveries) -> None:
    async with receiver(endless) as url, sending(database):
        (row,) = await deliveries.become("delivered", await deliveries.add("ada", url))
    assert row["last_status"] == "200"


async def test_an_address_that_is_refused_is_not_called(database: Database, deliveries: Deliveries) -> None:
    async with receiver(answering(200)) as url, sending(database, guard=AddressGuard()):
        ids = await deliveries.add("ada", url) + await deliveries.add("ada", url.replace("127.0.0.1", "localhost"))
        found = await deliveries.become("pending", ids)
    assert {one["last_status"] for one in found} == {"address_refused"}


async def test_who_is_gone_is_not_called_again(database: Database, deliveries: Deliveries) -> None:
    async with receiver(answering(410)) as url, sending(database):
        (row,) = await deliveries.become("dead", await deliveries.add("ada", url))
    assert row["last_status"] == "410"


async def test_after_a_day_it_is_given_up(database: Database, deliveries: Deliveries) -> None:
    async with receiver(answering(503)) as url, sending(database):
        (row,) = await deliveries.become("dead", await deliveries.add("ada", url, give_up_at_ms=now_ms() + 100))
    assert row["last_status"] == "503"


@pytest.mark.parametrize(
    ("given", "asked_s"), [("120", 120), ("9" * 30, LONGEST_ASKED_S), ("in the evening", 0), ("-5", 0), ("date", 300)]
)
async def test_a_receiver_may_ask_for_a_pause(
    database: Database, deliveries: Deliveries, given: str, asked_s: float
) -> None:
    text = formatdate(time.time() + 300, usegmt=True) if given == "date" else given
    async with receiver(answering(429, Retry_After=text)) as url, sending(database):
        before_ms = now_ms()
        (row,) = await deliveries.become("pending", await deliveries.add("ada", url))
    pause_s = (row["due_at_ms"] - before_ms) / 1000
    if asked_s:
        # A date has whole seconds, and what lies between the two clocks' looks is of this test.
        assert asked_s - 2 <= pause_s <= 1.2 * asked_s + 60
    else:
        assert pause_s < 100


class Gate:
    """A receiver that holds what comes below /hang, and counts what it holds at once; the rest is answered."""

    def __init__(self) -> None:
        self.held = self.most_held = 0
        self.opened = asyncio.Event()
        self.paths: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.Response:
        self.paths[request.path] += 1
        if request.path == "/hang":
            self.held += 1
            self.most_held = max(self.most_held, self.held)
            await self.opened.wait()
            self.held -= 1
        return web.Response(status=500 if request.path == "/fail" else 200)


async def test_an_owner_whose_receiver_hangs_holds_up_nobody_else(database: Database, deliveries: Deliveries) -> None:
    gate = Gate()
    async with receiver(gate.handle) as url, sending(database):
        # One is being sent when many more become due.
        await deliveries.add("ada", f"{url}/hang")
        await eventually(lambda: _is(gate.held == 1), "the first hangs", 60)
        hanging = await deliveries.add("ada", f"{url}/hang", 3 * OF_OWNER)
        await eventually(lambda: _is(gate.held == OF_OWNER), "as many hang as may", 60)
        await deliveries.become("delivered", await deliveries.add("bob", f"{url}/hook", 30))
        assert gate.most_held == OF_OWNER
        gate.opened.set()
        await deliveries.become("delivered", hanging)


async def test_an_owner_whose_receiver_fails_gets_less_room(database: Database, deliveries: Deliveries) -> None:
    gate = Gate()
    async with receiver(gate.handle) as url, sending(database):
        await deliveries.become("pending", await deliveries.add("ada", f"{url}/fail"))
        hanging = await deliveries.add("ada", f"{url}/hang", OF_OWNER)
        await eventually(lambda: _is(gate.held == OF_FAILING), "some hang", 60)
        await deliveries.become("delivered", await deliveries.add("bob", f"{url}/hook", 5))
        assert gate.most_held == OF_FAILING
        gate.opened.set()
        await deliveries.become("delivered", hanging)


async def test_when_all_room_is_taken_the_next_is_sent_as_soon_as_one_is_done(
    database: Database, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "LOOK_EVERY_S", 1000.0)
    gate = Gate()
    async with receiver(gate.handle) as url, sending(database, max_sending=3) as sender:
        hanging = await deliveries.add("ada", f"{url}/hang", 5)
        sender.wake()
        await eventually(lambda: _is(gate.held == 3), "all room is taken", 60)
        gate.opened.set()
        await deliveries.become("delivered", hanging)
    assert gate.paths == {"/hang": 5}


async def test_two_processes_send_each_notification_once(database: Database, deliveries: Deliveries) -> None:
    gate = Gate()
    async with receiver(gate.handle) as url, sending(database), sending(database):
        ids = await deliveries.add("ada", f"{url}/hook", 60) + await deliveries.add("bob", f"{url}/hook", 60)
        await deliveries.become("delivered", ids)
    assert gate.paths == {"/hook": 120}


async def test_what_cannot_be_noted_is_sent_again_under_the_same_id(
    database: Database, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LEASE_MS", 1000)
    finish, failures = DeliveryStore.finish, [Problem(503, "away", code="unavailable")]
    seen: Counter[str] = Counter()

    async def failing_first(self: DeliveryStore, some: Sequence[Delivery], state: State, status: str) -> None:
        if failures:
            raise failures.pop()
        await finish(self, some, state, status)

    async def handler(request: web.Request) -> web.Response:
        seen[request.headers["webhook-id"]] += 1
        return web.Response()

    monkeypatch.setattr(DeliveryStore, "finish", failing_first)
    async with receiver(handler) as url, sending(database):
        ids = await deliveries.add("ada", url, 3)
        await deliveries.become("delivered", ids)
    assert set(seen) == set(ids)
    assert max(seen.values()) == 2, "one at least was told twice"


async def _is(condition: bool) -> bool:
    return condition
