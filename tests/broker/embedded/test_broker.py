"""The embedded broker: its counts agree with its file, whatever times out, fails or is moved by another process."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.embedded.store import CommitThread, Job, QueueFile, resolve
from broker.interface import BrokerUnavailable, ConfirmLate, QueueFull
from broker.message import Message
from broker.topology import (
    DEAD_EXCHANGE,
    DEAD_LETTERS,
    READINGS,
    READINGS_EXCHANGE,
    Queue,
)
from runtime.process import CannotGoOnError

SMALL_DEAD = Queue(DEAD_LETTERS.name, DEAD_EXCHANGE, DEAD_LETTERS.binding, max_bytes=1_000)
READINGS_OVER_SMALL = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, dead_letter_queue=SMALL_DEAD)


def committed(path: Path, queue: Queue = READINGS) -> tuple[int, int]:
    with sqlite3.connect(path) as db:
        found = db.execute(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM messages WHERE queue = ?", (queue.name,)
        ).fetchone()
    db.close()
    return int(found[0]), int(found[1])


def counted(broker: EmbeddedBroker, queue: Queue = READINGS) -> tuple[int, int]:
    state = broker._states[queue.name]
    assert state.pending_bytes == 0
    return state.messages, state.bytes


async def test_two_queues_of_one_exchange_are_refused(tmp_path: Path) -> None:
    second = Queue("tidegate.readings.second", READINGS_EXCHANGE, "readings.*")
    with pytest.raises(ValueError, match=r"two queues on tidegate\.readings"):
        async with EmbeddedBroker.open_at(tmp_path / "queue.db", (DEAD_LETTERS, READINGS, second)):
            pass


async def test_a_publish_that_timed_out_is_not_stored_later_nor_counted(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with EmbeddedBroker.open_at(path) as broker, broker.publisher(confirm_timeout_s=0.1) as publisher:
        await publisher.publish(Message(b"first"), READINGS_EXCHANGE)
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(ConfirmLate):
                await publisher.publish(Message(b"late"), READINGS_EXCHANGE)
        blocker.execute("ROLLBACK")
        blocker.close()
        async with broker.publisher() as patient:
            await patient.publish(Message(b"last!"), READINGS_EXCHANGE)
        assert committed(path) == counted(broker) == (2, 10)


async def test_acknowledging_twice_at_once_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with EmbeddedBroker.open_at(path) as broker, broker.publisher() as publisher:
        for _ in range(6):
            await publisher.publish(Message(bytes(100)), READINGS_EXCHANGE)
        async with broker.consumer(READINGS, prefetch=5) as consumer:
            held = [await consumer.get() for _ in range(5)]
            await asyncio.gather(
                consumer.acknowledge(held[3], multiple=True),
                consumer.acknowledge(held[2]),
                consumer.acknowledge(held[3], multiple=True),
                consumer.reject(held[1]),
                consumer.acknowledge(held[4]),
            )
            assert committed(path) == counted(broker) == (1, 100)
        assert counted(broker, DEAD_LETTERS) == (0, 0)


async def test_what_the_full_dead_letters_refuse_stays_and_moves_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    queues = (SMALL_DEAD, READINGS_OVER_SMALL)
    async with EmbeddedBroker.open_at(path, queues) as broker, broker.publisher() as publisher:
        for _ in range(4):
            await publisher.publish(Message(bytes(400)), READINGS_EXCHANGE)
        async with broker.consumer(READINGS, prefetch=4) as consumer:
            for _ in range(4):
                await consumer.reject(await consumer.get())
            # Two fit; the others stay undelivered, neither lost nor delivered again meanwhile.
            assert committed(path, SMALL_DEAD) == counted(broker, SMALL_DEAD) == (2, 800)
            assert committed(path) == counted(broker) == (2, 800)
            await publisher.publish(Message(b"good"), READINGS_EXCHANGE)
            async with asyncio.timeout(5):
                good = await consumer.get()
            assert good.message.body == b"good"
            await consumer.acknowledge(good)
            async with broker.browser(SMALL_DEAD) as browser:
                async for letter in browser:
                    await browser.settle(letter)
            assert committed(path, SMALL_DEAD) == counted(broker, SMALL_DEAD) == (2, 800)
            assert committed(path) == counted(broker) == (0, 0)


async def test_what_the_full_dead_letters_refused_is_delivered_again_after_a_restart(tmp_path: Path) -> None:
    queues = (SMALL_DEAD, READINGS_OVER_SMALL)
    async with EmbeddedBroker.open_at(tmp_path / "queue.db", queues) as broker, broker.publisher() as publisher:
        await publisher.publish(Message(bytes(1_200)), READINGS_EXCHANGE)
        async with broker.consumer(READINGS, prefetch=4) as consumer:
            await consumer.reject(await consumer.get())
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db", queues) as broker,
        broker.consumer(READINGS, prefetch=4) as consumer,
        asyncio.timeout(5),
    ):
        again = await consumer.get()
        assert (len(again.message.body), again.delivery_count) == (1_200, 1)


async def test_what_another_process_moves_in_the_file_is_noticed_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    small = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=1_000, dead_letter_queue=DEAD_LETTERS)
    async with EmbeddedBroker.open_at(path, (DEAD_LETTERS, small)) as owner, owner.publisher() as publisher:
        await publisher.publish(Message(bytes(900)), READINGS_EXCHANGE)
        with pytest.raises(QueueFull):
            await publisher.publish(Message(bytes(900)), READINGS_EXCHANGE)
        async with EmbeddedBroker.open_at(path, (DEAD_LETTERS, small)) as other, other.browser(small) as browser:
            async for message in browser:
                await browser.settle(message)
        await publisher.publish(Message(bytes(800)), READINGS_EXCHANGE)
        assert counted(owner) == (1, 800)


async def test_an_operation_whose_commit_fails_counts_nothing(tmp_path: Path) -> None:
    files: list[QueueFile] = []

    def committer(file: QueueFile) -> CommitThread:
        files.append(file)
        return CommitThread(file)

    opening = EmbeddedBroker.open_at(tmp_path / "queue.db", committer=committer)
    async with opening as broker, broker.publisher() as publisher:
        files[0]._connection.execute("PRAGMA query_only=ON")
        with pytest.raises(BrokerUnavailable):
            await publisher.publish(Message(b"refused"), READINGS_EXCHANGE)
        files[0]._connection.execute("PRAGMA query_only=OFF")
        assert counted(broker) == (0, 0)


class PausedCommits:
    """Commits what was submitted only when it is told to, as a disk that stands still."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file
        self.waiting: list[Job] = []
        self.is_paused = False

    def submit(self, job: Job) -> None:
        """Keep a job, or commit it at once."""
        self.waiting.append(job)
        if not self.is_paused:
            self.resume()

    def resume(self) -> None:
        """Commit what waits."""
        self.is_paused = False
        waiting, self.waiting = self.waiting, []
        if waiting:
            resolve(waiting, self._file.commit(waiting))

    async def close(self) -> None:
        """Close the file."""
        self._file.close()


async def test_what_a_slow_fetch_had_taken_is_delivered_again_though_its_end_was_cancelled_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.background.CANCEL_AGAIN_S", 0.01)
    commits: list[PausedCommits] = []

    def committer(file: QueueFile) -> PausedCommits:
        commits.append(PausedCommits(file))
        return commits[0]

    async def consume(broker: EmbeddedBroker) -> None:
        async with broker.consumer(READINGS, prefetch=1):
            await asyncio.Event().wait()

    opening = EmbeddedBroker.open_at(tmp_path / "queue.db", committer=committer)
    async with opening as broker, broker.publisher() as publisher, asyncio.timeout(10):
        await publisher.publish(Message(b"one"), READINGS_EXCHANGE)
        async with broker.consumer(READINGS, prefetch=1) as first:
            await first.get()
        commits[0].is_paused = True
        second = asyncio.create_task(consume(broker))
        while not commits[0].waiting:
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait((second,))
        commits[0].resume()
        async with broker.consumer(READINGS, prefetch=1) as third:
            assert (await third.get()).message.body == b"one"


@pytest.mark.parametrize("file", ["", "notes.txt", "notes.txt/queue.db"])
async def test_a_file_that_cannot_be_used_is_named_in_one_line(file: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database")
    with pytest.raises(BrokerUnavailable, match=f"{tmp_path / file} cannot be used") as refused:
        async with EmbeddedBroker.open_at(tmp_path / file):
            pass
    assert isinstance(refused.value, CannotGoOnError)  # which a process reports without a traceback
