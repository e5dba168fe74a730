"""`python -m broker`, run as an operator runs it, against both brokers while they work."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from broker.document import encode_document
from broker.interface import Broker
from broker.message import Message
from broker.reading import Reading
from broker.topology import DEAD_EXCHANGE, DEAD_LETTERS, READINGS, READINGS_EXCHANGE
from tests.broker.system import System
from tests.broker.waiting import eventually

ROOT = Path(__file__).parents[2]
SEEN = "2026-01-02T03:04:05.678Z"


class Ran:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.lines = done.stdout.splitlines()
        self.errors = done.stderr

    def rows(self) -> list[dict[str, Any]]:
        assert self.code == 0, self.errors
        return [json.loads(line) for line in self.lines]


async def run(system: System, *arguments: str) -> Ran:
    command = [sys.executable, "-m", "broker", *arguments]
    environment = os.environ | {"BROKER_URL": system.url}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done)


async def letters(system: System, *arguments: str) -> Ran:
    return await run(system, "dead-letters", *arguments)


def readings(device: str, count: int) -> bytes:
    return b"".join(encode_document("owner-1", device, Reading("t", n, n, 0, n)) for n in range(count))


def letter(reason: str, body: bytes, message_id: str, **headers: str | int) -> Message:
    told: dict[str, str | int] = {"x-reason": reason, "x-error": "why", "x-service": "persister", "x-first-seen": SEEN}
    return Message(body, {**told, **{name.replace("_", "-"): text for name, text in headers.items()}}, message_id)


REFUSED = letter("refused", readings("d-1", 3), "refused-id", x_schema=1)
OTHERS = letter("refused", readings("d-2", 1), "others-id", x_schema=1)
GARBAGE = letter("undecodable", b"\x00garbage\x1b[31m", "garbage-id")


@asynccontextmanager
async def dead(system: System, *messages: Message) -> AsyncIterator[Broker]:
    """A broker with these letters."""
    async with system.opened() as broker, broker.publisher() as publisher:
        await broker.declare()
        for message in messages:
            await publisher.publish(message, DEAD_EXCHANGE)
        yield broker


async def taken(broker: Broker, count: int) -> list[Message]:
    async with broker.consumer(READINGS, prefetch=100) as consumer, asyncio.timeout(10):
        found = []
        for _ in range(count):
            delivery = await consumer.get()
            await consumer.acknowledge(delivery)
            found.append(delivery.message)
        return found


async def ids(system: System) -> list[str]:
    return sorted(row["id"] for row in (await letters(system, "list", "--json")).rows())


async def test_list_tells_what_each_letter_says_and_takes_nothing(system: System) -> None:
    async with dead(system, REFUSED, OTHERS, GARBAGE) as broker:
        table = await letters(system, "list")
        assert table.code == 0
        assert len(table.lines) == 4
        assert "refused-" in table.lines[1]
        assert "owner-1/d-1" in table.lines[1]
        rows = (await letters(system, "list", "--json")).rows()
        assert rows[0] == {
            "number": 1,
            "id": "refused-id",
            "reason": "refused",
            "error": "why",
            "service": "persister",
            "firstSeen": SEEN,
            "readings": 3,
            "owner": "owner-1",
            "device": "d-1",
            "bytes": len(REFUSED.body),
            "replays": 0,
        }
        assert [row["reason"] for row in rows] == ["refused", "refused", "undecodable"]
        assert [row["id"] for row in (await letters(system, "list", "--json", "--device", "d-2")).rows()] == [
            "others-id"
        ]
        filtered = await letters(system, "list", "--json", "--reason", "undecodable")
        assert [row["id"] for row in filtered.rows()] == ["garbage-id"]
        assert len((await letters(system, "list", "--json", "--limit", "2")).rows()) == 2

        async def all_back() -> bool:
            return await broker.depth(DEAD_LETTERS) == 3

        await eventually(all_back, "every letter is back")


async def test_show_decodes_documents_and_shows_bytes_that_it_cannot_without_steering_the_terminal(
    system: System,
) -> None:
    async with dead(system, REFUSED, GARBAGE):
        shown = await letters(system, "show", "refused-id")
        text = "\n".join(shown.lines)
        assert shown.code == 0
        assert "x-first-seen: " + SEEN in text
        assert '"device": "d-1"' in text
        assert "documents: 3" in text
        garbage = "\n".join((await letters(system, "show", "2")).lines)
        assert "00 67 61 72 62 61 67 65 1b" in garbage
        assert "\x1b" not in garbage
        (row,) = (await letters(system, "show", "garbage-id", "--json")).rows()
        assert bytes.fromhex(row["bodyHex"]) == GARBAGE.body
        missing = await letters(system, "show", "no-such-id")
        assert (missing.code, missing.lines) == (1, [])
        assert "no dead letter no-such-id" in missing.errors


async def test_replay_brings_the_chosen_back_as_they_were_and_counts_tries(system: System) -> None:
    async with dead(system, REFUSED, OTHERS, GARBAGE) as broker:
        done = await letters(system, "replay", "--device", "d-1")
        assert (done.code, done.errors.splitlines()[-1]) == (0, "1 dead letters replayed.")
        (message,) = await taken(broker, 1)
        assert message.body == REFUSED.body
        assert dict(message.headers) == {"x-schema": 1, "x-replays": 1}
        assert await ids(system) == ["garbage-id", "others-id"]
        # It dies again, this time by the broker's hand: what was counted stays.
        async with broker.publisher() as publisher, broker.consumer(READINGS, prefetch=1) as consumer:
            await publisher.publish(message, READINGS_EXCHANGE)
            async with asyncio.timeout(10):
                await consumer.reject(await consumer.get())

        async def buried() -> bool:
            return await broker.depth(DEAD_LETTERS) == 3

        await eventually(buried, "the rejected message is a dead letter")
        (row,) = (await letters(system, "list", "--json", "--reason", "rejected")).rows()
        assert (row["replays"], row["service"], row["device"]) == (1, "broker", "d-1")
        assert row["firstSeen"].startswith("20")
        assert row["firstSeen"].endswith("Z")
        assert (await letters(system, "replay", "--reason", "rejected")).code == 0
        (again,) = await taken(broker, 1)
        assert dict(again.headers) == {"x-schema": 1, "x-replays": 2}
        assert again.body == REFUSED.body


async def test_replay_leaves_what_does_not_decode_unless_forced(system: System) -> None:
    newer = letter("newer_schema", b"a newer form", "newer-id", x_schema=2)
    async with dead(system, GARBAGE, newer, OTHERS) as broker:
        done = await letters(system, "replay")
        assert done.code == 0
        assert "1 dead letters replayed.\n2 left: " in done.errors
        assert [message.body for message in await taken(broker, 1)] == [OTHERS.body]
        assert await ids(system) == ["garbage-id", "newer-id"]
        assert (await letters(system, "replay", "newer-id", "--force")).code == 0
        (message,) = await taken(broker, 1)
        assert (message.body, dict(message.headers)) == (b"a newer form", {"x-schema": 2, "x-replays": 1})


async def test_replay_keeps_to_its_rate(system: System) -> None:
    async with dead(system, *(letter("refused", readings("d", 1), f"id-{n}", x_schema=1) for n in range(6))) as broker:
        started = time.monotonic()
        assert (await letters(system, "replay", "--rate", "4", "--limit", "5")).code == 0
        assert time.monotonic() - started >= 1.0
        assert len(await taken(broker, 5)) == 5
        assert await broker.depth(DEAD_LETTERS) == 1


async def test_replay_stops_when_the_readings_are_full_and_loses_nothing(tmp_path: Path) -> None:
    system = System(f"embedded://{tmp_path}/queue.db")
    async with dead(system, REFUSED, OTHERS):
        pass
    with sqlite3.connect(system.url.removeprefix("embedded://")) as db:
        db.execute(
            "INSERT INTO messages (queue, message_id, headers, body) VALUES (?, 'x', '{}', zeroblob(?))",
            (READINGS.name, 900_000_000),
        )
        db.execute(
            "INSERT INTO messages (queue, message_id, headers, body) VALUES (?, 'x', '{}', zeroblob(?))",
            (READINGS.name, READINGS.max_bytes - 900_000_000),
        )
    db.close()
    done = await letters(system, "replay")
    assert done.code == 1
    assert "0 dead letters replayed." in done.errors
    assert "its bound is" in done.errors
    assert await ids(system) == ["others-id", "refused-id"]


async def test_discard_asks_for_yes_and_then_forgets_the_chosen_only(system: System) -> None:
    async with dead(system, REFUSED, OTHERS, GARBAGE) as broker:
        asked = await letters(system, "discard")
        assert asked.code == 2
        assert "--yes" in asked.errors
        assert await ids(system) == ["garbage-id", "others-id", "refused-id"]
        assert (await letters(system, "discard", "--yes", "--reason", "refused", "--limit", "1")).code == 0
        assert len(await ids(system)) == 2
        assert (await letters(system, "discard", "--yes", "garbage-id")).code == 0
        assert (await letters(system, "discard", "--yes", "garbage-id")).code == 1
        assert (await letters(system, "discard", "--yes")).code == 0
        assert await ids(system) == []
        assert await broker.depth(READINGS) == 0


async def test_a_replayed_letter_that_dies_again_meanwhile_is_not_replayed_for_ever(system: System) -> None:
    async with dead(system, REFUSED, OTHERS) as broker, broker.consumer(READINGS, prefetch=1) as consumer:
        buried = 0

        async def bury_everything() -> None:
            nonlocal buried
            while True:
                await consumer.reject(await consumer.get())
                buried += 1

        worker = asyncio.create_task(bury_everything())
        done = await letters(system, "replay", "--rate", "5")
        assert "2 dead letters replayed." in done.errors

        async def back() -> bool:
            return buried == 2 and await broker.depth(DEAD_LETTERS) == 2

        await eventually(back, "both are dead letters again")
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker


async def test_a_letter_of_the_brokers_own_is_read_from_its_x_death(rabbitmq_url: str) -> None:
    system = System(rabbitmq_url)
    async with dead(system):
        async with await aio_pika.connect(rabbitmq_url) as connection:
            channel = await connection.channel()
            expiring = await channel.declare_queue(
                "expiring", exclusive=True, arguments={"x-dead-letter-exchange": DEAD_EXCHANGE.name, "x-message-ttl": 1}
            )
            assert expiring.name == "expiring"
            await channel.default_exchange.publish(
                aio_pika.Message(readings("d-9", 2), headers={"x-schema": 1}), "expiring"
            )

            async def there() -> bool:
                return len(await ids(system)) == 1

            await eventually(there, "the expired message is a dead letter")
        (row,) = (await letters(system, "list", "--json")).rows()
    assert (row["reason"], row["service"], row["readings"], row["device"]) == ("expired", "broker", 2, "d-9")
    assert row["firstSeen"].startswith("20")


# The command itself


@pytest.mark.parametrize("url", ["amqp://guest:secret@127.0.0.1:9/", "embedded:///no/such/file.db"])
@pytest.mark.parametrize("action", [["list"], ["show", "1"], ["replay"], ["discard", "--yes"]])
async def test_a_broker_that_is_away_is_exit_code_1_and_one_clear_line(url: str, action: list[str]) -> None:
    ran = await letters(System(url), *action)
    assert ran.code == 1
    assert "The broker did not do it: " in ran.errors
    assert "secret" not in ran.errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dead-letters"],
        ["dead-letters", "show"],
        ["dead-letters", "burn"],
        ["dead-letters", "replay", "--rate", "0"],
        ["dead-letters", "replay", "--rate", "nan"],
        ["dead-letters", "list", "--limit", "-1"],
        ["declare", "--wait", "x"],
    ],
)
async def test_a_wrong_command_is_exit_code_2(arguments: list[str]) -> None:
    assert (await run(System("amqp://127.0.0.1:9/"), *arguments)).code == 2


@pytest.mark.parametrize("url", ["", "redis://:secret@host"])
async def test_a_wrong_address_is_exit_code_2_and_not_shown(url: str) -> None:
    ran = await letters(System(url), "list")
    assert ran.code == 2
    assert "BROKER_URL" in ran.errors
    assert "secret" not in ran.errors


async def test_declare_makes_every_queue_and_may_be_repeated(system: System) -> None:
    for _ in range(2):
        assert (await run(system, "declare")).code == 0
    async with system.opened() as broker:
        assert await broker.depth(DEAD_LETTERS) == await broker.depth(READINGS) == 0


async def test_declare_waits_only_as_long_as_it_was_told() -> None:
    ran = await run(System("amqp://127.0.0.1:9/"), "declare", "--wait", "0")
    assert ran.code == 1
