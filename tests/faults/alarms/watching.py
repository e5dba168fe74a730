"""Runs devices whose series rules watch, acknowledges some of their alarms, and judges all of it in the end."""

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import aiohttp
from sqlalchemy import Select, func, select, update

from database.alarm_tables import alarm_deliveries, alarm_history, alarms
from readings.document import received_at_ms
from testing.waiting import eventually
from tests.alarms.rows import rows
from tests.auth.rows import change
from tests.faults.alarms.devices import Pulsing, Steady, Watched
from tests.faults.alarms.findings import AlarmsVerdict, Finding
from tests.faults.alarms.history import Row, judged_history, notified_rows
from tests.faults.alarms.notifications import Entry, Notified, judged_notifications
from tests.faults.alarms.rules import LEVEL, MODE, PULSE, RULES, SILENT_S, RuleOf, Stored
from tests.faults.stack import Service, Stack
from tests.faults.verdict import Stores, identity_of, stored_documents
from tests.integration.device import logged_in, new_token, registered_device

WITHIN_S = 60.0
# A delivery that a killed process has leased is sent again after 30 s, and then at most twice more, after 5 s and 15 s.
DELIVERED_WITHIN_S = 150.0
# A silence of 5 s counts after 2 s more; another process may have to take over first.
SILENCE_WITHIN_S = 40.0
ACKNOWLEDGED_EVERY_S = 4.0
Series = tuple[str, str]


@dataclass(frozen=True)
class Made:
    """A rule that was made."""

    rule: RuleOf
    id: str
    secret: str
    urls: list[str]
    device: str


class Watching:
    """The devices, the rules and the receiver of a run."""

    def __init__(self, stack: Stack, devices: list[Watched], rng: random.Random) -> None:
        self._stack = stack
        self._stores = Stores(stack.mongodb.url, stack.rabbitmq.url)
        self._receiver = stack.receiver
        self._devices = devices
        self._random = rng
        self._made: list[Made] = []
        # By device and sensorType, by position: what is stored, and what was before somebody removed it.
        self._stored: defaultdict[Series, dict[tuple[int, int], Stored]] = defaultdict(dict)
        self._acknowledged = self._tried = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, stack: Stack, seed: int) -> AsyncIterator[Self]:
        """Make the rules, wait until everyone knows them, and let the devices send while the context lasts."""
        urls = [gateway.url for gateway in stack.gateways]
        devices: list[Watched] = []
        kinds: tuple[type[Watched], ...] = (Steady, Watched, Pulsing)
        for number, kind in enumerate(kinds):
            email = _email(kind.label)
            owner, device, token = await registered_device(stack.auth.url, email)
            devices.append(kind(number, list(urls), owner, device, token, seed))
            devices[-1].renew = partial(new_token, stack.auth.url, email, device)
        watching = cls(stack, devices, random.Random(f"{seed}/alarms"))
        await watching._make_rules()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(device.run()) for device in devices]
            running.append(tasks.create_task(watching._acknowledge_at_random()))
            watching.resume()
            yield watching
            for task in running:
                task.cancel()

    async def _make_rules(self) -> None:
        async with aiohttp.ClientSession() as session:
            for device in self._devices:
                bearer = await self._bearer(device)
                for rule in (one for one in RULES if one.device == device.label):
                    urls = [f"{self._receiver.url}/{rule.label}/{hook}" for hook in range(rule.hooks)]
                    body = rule.body(device.device, urls)
                    url = f"{self._stack.alarms[0].url}/alarms/rules"
                    async with session.post(url, json=body, headers=bearer) as answer:
                        assert answer.status == 201, await answer.text()
                        made = await answer.json()
                    self._made.append(Made(rule, made["id"], made["secret"], urls, device.device))

        async def leader_knows() -> bool:
            return any([await gauge(one, "tidegate_alarms_rules") == len(RULES) for one in self._stack.alarms])

        await eventually(leader_knows, "the process that evaluates knows the rules")
        # Until they have asked what rules watch, they announce everything; and then they know all of these.
        await asyncio.gather(*(persister.restart() for persister in self._stack.persisters))

    async def _bearer(self, device: Watched) -> dict[str, str]:
        async with aiohttp.ClientSession(self._stack.auth.url) as session:
            return {"Authorization": f"Bearer {await logged_in(session, _email(device.label))}"}

    def resume(self) -> None:
        """Let the devices send."""
        for device in self._devices:
            device.may_send.set()

    async def pause(self) -> None:
        """Let the devices finish; return once all of it is stored, and remember it."""
        async with asyncio.timeout(WITHIN_S):
            for device in self._devices:
                while not device.idle:
                    await asyncio.sleep(0.01)
                device.may_send.clear()
            while not all(device.idle for device in self._devices):
                await asyncio.sleep(0.01)
        await eventually(self._all_is_stored, "everything acknowledged is stored")

    async def paused(self, do: Callable[[], Awaitable[None]]) -> None:
        """Do what removes stored readings, while nothing is sent: they count, as they were announced."""
        await self.pause()
        try:
            await do()
        finally:
            self.resume()

    async def _all_is_stored(self) -> bool:
        for sensor_type in (LEVEL, MODE, PULSE):
            for one in await asyncio.to_thread(asyncio.run, stored_documents(self._stores, sensor_type)):
                _, device, _, ts_ms, seq = identity_of(one["_id"])
                received_ms = received_at_ms_of(one)
                self._stored[device, sensor_type][ts_ms, seq] = Stored(ts_ms, seq, one["value"], received_ms)
        acknowledged = {one[1:] for device in self._devices for one in device.acknowledged}
        there = {(device, kind, *at) for (device, kind), some in self._stored.items() for at in some}
        return acknowledged <= there

    async def _acknowledge_at_random(self) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * ACKNOWLEDGED_EVERY_S)
            with suppress(aiohttp.ClientError, TimeoutError, KeyError):
                await self._acknowledge(self._random.choice(self._devices), self._random.choice(self._stack.alarms))

    async def _acknowledge(self, device: Watched, alarms: Service) -> None:
        headers, timeout = await self._bearer(device), aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(alarms.url, headers=headers, timeout=timeout) as session:
            async with session.get("/alarms?state=firing") as answer:
                firing = (await answer.json())["items"]
            if not firing:
                return
            self._tried += 1
            async with session.post(f"/alarms/{self._random.choice(firing)['id']}/acknowledge") as answer:
                self._acknowledged += answer.status == 200

    async def judged(self) -> AlarmsVerdict:
        """Let everything come to its end, and return the verdict."""
        try:
            await self._drained()
        except (AssertionError, TimeoutError) as error:
            return AlarmsVerdict([Finding("missing", f"the end: {type(error).__name__}: {error}")])
        return await self._verdict()

    async def _drained(self) -> None:
        await self.pause()
        self._receiver.is_broken, self._receiver.is_good = False, True
        await asyncio.gather(*(service.ready() for service in self._stack.alarms))
        url = self._stack.users_url

        async def is_silent() -> bool:
            (pulsing,) = (one for one in self._made if one.rule.op == "silent")
            pulses = self._stored[pulsing.device, PULSE].values()
            if max((one.received_ms for one in pulses), default=0) > now_ms():
                return True  # by the clock of a gateway that was ahead
            found = await rows(url, select(alarms.c.state).where(alarms.c.rule_id == pulsing.id))
            return any(one["state"] in ("firing", "acknowledged") for one in found)

        async def all_announced() -> bool:
            names = ("tidegate.readings", "tidegate.alarms")
            depths = [await asyncio.to_thread(self._stack.rabbitmq.api, "GET", f"queues/%2F/{name}") for name in names]
            return not any(depth["messages"] for depth in depths)

        await eventually(is_silent, "the device that has ended is silent", SILENCE_WITHIN_S)
        await eventually(all_announced, "the queues are empty")
        await self._make_due()
        with suppress(AssertionError):  # the verdict will say it
            await eventually(self._none_is_due, "no delivery is pending", DELIVERED_WITHIN_S)

    async def _make_due(self) -> None:
        """End the pauses of up to 45 s before next attempts."""
        table = alarm_deliveries.c
        waits = (table.state == "pending", table.alarm_id.is_not(None))
        await change(self._stack.users_url, update(alarm_deliveries).where(*waits).values(due_at_ms=now_ms()))

    async def _none_is_due(self) -> bool:
        table = alarm_deliveries.c
        waits = (table.state == "pending", table.alarm_id.is_not(None) | (table.due_at_ms <= now_ms()))
        (found,) = await rows(self._stack.users_url, select(func.count().label("n")).where(*waits))
        await asyncio.sleep(0.2)
        return not found["n"]

    async def _verdict(self) -> AlarmsVerdict:
        histories = await self._histories()
        ids: defaultdict[str, list[str]] = defaultdict(list)
        for one in await self._rows(select(alarms.c.rule_id, alarms.c.id)):
            ids[one["rule_id"]].append(one["id"])
        notified = []
        for made in self._made:
            changes = {one: notified_rows(histories[one]) for one in ids[made.id]}
            notified.append(Notified(made.id, made.rule.label, made.secret, made.urls, changes))
        verdict = judged_notifications(notified, await self._entries(), self._receiver.calls, now_ms())
        for made in self._made:
            mine = [row for one in ids[made.id] for row in histories[one]]
            readings = list(self._stored[made.device, made.rule.sensor_type].values())
            (device,) = (one for one in self._devices if one.device == made.device)
            until = now_ms() - 1000 * (SILENT_S + 3)
            repeats = device.repeats if made.rule.op == "silent" else ()
            verdict.findings += judged_history(made.rule, readings, mine, now_ms=until, repeats=repeats)
            verdict.figures["late"] += sum(row.cause == "late" for row in mine)
        owners = sum(row.cause == "owner" for some in histories.values() for row in some)
        verdict.require(self._acknowledged <= owners <= self._tried, f"{owners} of {self._tried} acknowledged")
        verdict.figures["acknowledged"] = owners
        verdict.figures["readings"] = sum(map(len, self._stored.values()))
        return verdict

    async def _rows(self, query: Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
        return await rows(self._stack.users_url, query)

    async def _histories(self) -> defaultdict[str, list[Row]]:
        found: defaultdict[str, list[Row]] = defaultdict(list)
        for one in await self._rows(select(alarm_history)):
            value = None if one["value"] is None else json.loads(one["value"])
            row = Row(one["number"], one["state"], one["cause"], one["ts_ms"], one["seq"], value)
            found[one["alarm_id"]].append(row)
        return found

    async def _entries(self) -> list[Entry]:
        found = await self._rows(select(alarm_deliveries))
        names = ("id", "rule_id", "body", "state", "created_at_ms", "due_at_ms")
        return [
            Entry(**{name: one[name] for name in names}, url=one["target"], is_digest=one["alarm_id"] is None)
            for one in found
        ]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def received_at_ms_of(document: dict[str, Any]) -> int:
    """Return when a gateway has received a reading."""
    received_ms = received_at_ms(document)
    assert received_ms is not None
    return received_ms


def _email(label: str) -> str:
    return f"watched-{label}@example.com"


async def gauge(service: Service, name: str) -> float | None:
    """Return the value of a metric without labels; None if the service does not answer."""
    with suppress(aiohttp.ClientError, TimeoutError):
        timeout = aiohttp.ClientTimeout(total=2)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{service.ops_url}/metrics") as answer,
        ):
            for line in (await answer.text()).splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
    return None
