"""`python -m broker`, run as an operator runs it, against both brokers while they work."""

import asyncio
import json
import os
import pty
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

from broker.interface import Broker
from broker.message import Message
from broker.topology import DEAD_EXCHANGE, DEAD_LETTERS, READINGS, READINGS_EXCHANGE
from readings.document import encode_document
from readings.reading import Reading
from testing.waiting import eventually
from tests.broker.system import System

ROOT = Path(__file__).parents[3]
SEEN = "2026-01-02T03:04:05.678Z"


class Ran:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.lines = done.stdout.splitlines()
        self.errors = done.stderr

    def rows(self) -> list[dict[str, Any]]:
        assert self.code == 0, self.errors
        return [json.loads(line) for line in self.lines]


async def run(system: System, *arguments: str, stdin: int = subprocess.DEVNULL) -> Ran:
    command = [sys.executable, "-m", "broker", *arguments]
    environment = os.environ | {"BROKER_URL": system.url}
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=ROOT,
        env=environment,
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done)


async def letters(system: System, *arguments: str, stdin: int = subprocess.DEVNULL) -> Ran:
    return await run(system, "dead-letters", *arguments, stdin=stdin)


def readings(device: str, count: int) -> bytes:
    return b"".join(encode_document("owner-1", device, Reading("t", n, n, 0, n)) for n in range(count))


def letter(reason: str, body: bytes, message_id: str, **headers: str | int) -> Message:
    added: dict[str, str | int] = {"x-reason": reason, "x-error": "why", "x-service": "persister", "x-first-seen": SEEN}
    return Message(body, {**added, **{name.replace("_", "-"): text for name, text in headers.items()}}, message_id)


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
    async with broker.consumer(READINGS, prefetch=100) as consumer, asyncio.timeout(60):
        found = []
        for _ in range(count):
            delivery = await consumer.get()
            await consumer.acknowledge(delivery)
            found.append(delivery.message)
        return found


async def ids(system: System) -> list[str]:
    return sorted(row["id"] for row in (await letters(system, "list", "--json")).rows())


async def test_list_shows_each_dead_letter_and_removes_none(system: System) -> None:
    async with dead(system, REFUSED, OTHERS, GARBAGE) as broker:
        table = await letters(system, "list")
        assert table.code == 0
        assert len(table.lines) == 4
        assert "refused-" in table.lines[1]
        assert "owner-1   d-1 " in table.lines[1]
        rows = (await letters(system, "list", "--json")).rows()
        assert rows[0] == {
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
        garbage = "\n".join((await letters(system, "show", "garbage-")).lines)
        assert "00 67 61 72 62 61 67 65 1b" in garbage
        assert "\x1b" not in garbage
        (row,) = (await letters(system, "show", "garbage-id", "--json")).rows()
        assert bytes.fromhex(row["bodyHex"]) == GARBAGE.body
        missing = await letters(system, "show", "no-such-id")
        assert (missing.code, missing.lines) == (1, [])
        assert "no dead letter no-such-id" in missing.errors


async def test_replay_publishes_the_selected_dead_letters_unchanged_and_counts_replays(system: System) -> None:
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
            async with asyncio.timeout(60):
                await consumer.reject(await consumer.get())

        async def dead_lettered() -> bool:
            return await broker.depth(DEAD_LETTERS) == 3

        await eventually(dead_lettered, "the rejected message is a dead letter")
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
        assert "1 dead letters replayed.\n2 skipped: " in done.errors
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


async def test_discard_deletes_only_the_selected_dead_letters(system: System) -> None:
    async with dead(system, REFUSED, OTHERS, GARBAGE) as broker:
        assert (await letters(system, "discard", "--reason", "refused", "--limit", "1")).code == 0
        assert len(await ids(system)) == 2
        assert (await letters(system, "discard", "--yes", "garbage-id")).code == 0
        assert (await letters(system, "discard", "garbage-id")).code == 1
        assert (await letters(system, "discard")).code == 0
        assert await ids(system) == []
        assert await broker.depth(READINGS) == 0


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 1), (b"\n", 1), (b"y\n", 0)])
async def test_discard_asks_for_confirmation_on_a_terminal(tmp_path: Path, answer: bytes, left: int) -> None:
    system = System(f"embedded://{tmp_path}/queue.db")
    ours, theirs = pty.openpty()
    async with dead(system, REFUSED):
        os.write(ours, answer)
        asked = await letters(system, "discard", stdin=theirs)
        assert "[y/N]" in asked.errors
        assert asked.code == left
        assert len(await ids(system)) == left
        os.write(ours, b"n\n")
        assert (await letters(system, "discard", "--yes", stdin=theirs)).code == 0
        assert await ids(system) == []
    os.close(ours)
    os.close(theirs)


async def test_show_without_an_id_shows_all_that_the_filters_choose(system: System) -> None:
    async with dead(system, REFUSED, OTHERS, GARBAGE):
        shown = (await letters(system, "show", "--json", "--reason", "refused")).rows()
        assert sorted(row["id"] for row in shown) == ["others-id", "refused-id"]
        assert all(row["documents"] for row in shown)
        assert [row["id"] for row in (await letters(system, "show", "--json", "--device", "d-2")).rows()] == [
            "others-id"
        ]
        assert len((await letters(system, "show", "--json", "--limit", "2")).rows()) == 2
        assert "\n".join((await letters(system, "show")).lines).count("headers:") == 3
        nothing = await letters(system, "show", "--reason", "too_often")
        assert (nothing.code, nothing.lines) == (0, [])


async def test_list_shows_more_than_a_hundred(tmp_path: Path) -> None:
    system = System(f"embedded://{tmp_path}/queue.db")
    async with dead(system, *(letter("undecodable", b"x", f"id-{number}") for number in range(150))):
        assert len((await letters(system, "list", "--json")).rows()) == 150


async def test_a_dead_letter_is_selected_by_its_id_whatever_the_order_of_the_queue(system: System) -> None:
    nameless = [letter("undecodable", b"garbage %d" % number, "") for number in range(3)]
    async with dead(system, *nameless, REFUSED):
        rows = (await letters(system, "list", "--json", "--reason", "undecodable")).rows()
        assert {len(row["id"]) for row in rows} == {32}
        assert len({row["id"] for row in rows}) == 3
        for _ in range(3):  # each look may change the order
            for row in rows:
                (shown,) = (await letters(system, "show", "--json", row["id"][:10])).rows()
                assert shown["id"] == row["id"]
        (wanted,) = (await letters(system, "show", "--json", rows[1]["id"])).rows()
        assert (await letters(system, "discard", rows[1]["id"])).code == 0
        left = (await letters(system, "show", "--json", "--reason", "undecodable")).rows()
        assert {row["bodyHex"] for row in left} == {one.body.hex() for one in nameless} - {wanted["bodyHex"]}
        assert (await letters(system, "show", "1")).code == 1


async def test_the_beginning_of_several_ids_names_none_of_them(system: System) -> None:
    several = [letter("refused", readings("d", 1), name, x_schema=1) for name in ("same-id", "same-id-1", "same-id-2")]
    async with dead(system, *several):
        for action in ("show", "replay", "discard"):
            ran = await letters(system, action, "same-i")
            assert (ran.code, ran.lines) == (1, [])
            assert sorted(ran.errors.split()[-3:]) == ["same-id", "same-id-1", "same-id-2"]
        assert await ids(system) == ["same-id", "same-id-1", "same-id-2"]
        assert (await letters(system, "discard", "same-id")).code == 0, "a whole id names one"
        assert await ids(system) == ["same-id-1", "same-id-2"]


async def test_a_device_is_shown_next_to_an_owner_of_36_characters(tmp_path: Path) -> None:
    system = System(f"embedded://{tmp_path}/queue.db")
    owner, device = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "greenhouse-7.north_wall:sensor-12"
    body = encode_document(owner, device, Reading("t", 1, 1, 0, 1))
    async with dead(system, letter("refused", body, "some-id", x_schema=1)):
        (_, row) = (await letters(system, "list")).lines
    assert f" 0190a1b2  {device} " in row
    assert owner not in row


async def test_what_does_not_decode_does_not_count_against_the_limit_of_a_replay(system: System) -> None:
    garbage = [letter("undecodable", b"x%d" % number, f"garbage-{number}") for number in range(3)]
    async with dead(system, *garbage, REFUSED, OTHERS) as broker:
        done = await letters(system, "replay", "--limit", "1")
        assert "1 dead letters replayed." in done.errors
        assert [message.body for message in await taken(broker, 1)] == [REFUSED.body]
        assert len(await ids(system)) == 4


async def test_a_replayed_dead_letter_that_comes_back_at_once_is_not_replayed_in_a_loop(system: System) -> None:
    async with dead(system, REFUSED, OTHERS) as broker, broker.consumer(READINGS, prefetch=1) as consumer:
        dead_lettered = 0

        async def reject_everything() -> None:
            nonlocal dead_lettered
            while True:
                await consumer.reject(await consumer.get())
                dead_lettered += 1

        worker = asyncio.create_task(reject_everything())
        done = await letters(system, "replay", "--rate", "5")
        assert "2 dead letters replayed." in done.errors

        async def back() -> bool:
            return dead_lettered == 2 and await broker.depth(DEAD_LETTERS) == 2

        await eventually(back, "both are dead letters again")
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker


async def test_a_message_that_the_broker_dead_lettered_is_described_by_its_x_death(rabbitmq_url: str) -> None:
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
    assert "The broker failed: " in ran.errors
    assert "secret" not in ran.errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dead-letters"],
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


async def test_declare_waits_no_longer_than_its_option_says() -> None:
    ran = await run(System("amqp://127.0.0.1:9/"), "declare", "--wait", "0")
    assert ran.code == 1
