"""Which documents are dead by a server's answers, and that an outage kills none."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import bson
import pytest

from broker.message import Message
from persister import retry
from persister.batch import Outcome
from persister.mongodb_errors import DOCUMENT_ERRORS, WriteFailed, WriteRefused, is_outage
from persister.retry import HeldTooLongError
from persister.to_mongodb import ToMongoDB, Written
from readings.document import AS_MILLISECONDS
from testing.waiting import eventually
from tests.persister.harness import Harness, document, stored

UNKNOWN = 1


class Server:
    """Refuses documents with an ambiguous code, whole writes or single documents."""

    def __init__(self, bad: Sequence[bytes], *, whole: bool = True) -> None:
        self.bad = set(bad)
        self.whole = whole
        self.sick = False
        self.taken: list[bytes] = []
        self.asked = 0

    async def write(self, documents: Sequence[bytes]) -> Written:
        self.asked += 1
        refused = [place for place, one in enumerate(documents) if self.sick or one in self.bad]
        if refused and self.whole:
            raise WriteRefused("no", UNKNOWN, certain=False)
        self.taken += [one for place, one in enumerate(documents) if place not in refused]
        outcomes = [Outcome.RETRY if place in refused else Outcome.STORED for place in range(len(documents))]
        return Written(outcomes, dict.fromkeys(refused, "no"), dict.fromkeys(refused, UNKNOWN))


def writer(server: Server, hold_s: float = 60) -> Callable[[Sequence[bytes], Callable[[], None]], Awaitable[Written]]:
    """Return what writes documents to this server as a persister does."""
    harness = Harness([], hold_s=hold_s)
    harness.replace_store(server)
    return lambda documents, on_ambiguous: harness.persister.write(documents, on_ambiguous, harness.retrier)


def never() -> None:
    raise AssertionError("it takes no other write to know")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.01, 0.02))


@pytest.mark.parametrize(
    ("whole", "is_bad"),
    [
        (True, lambda number: number == 0),
        (True, lambda number: number == 99),
        (True, lambda number: number % 2),
        (True, lambda number: number < 90),
        (True, lambda number: number > 9),
        (False, lambda number: number == 0),
        (False, lambda number: number == 98),
        (False, lambda number: number % 2 == 0),
        (False, lambda number: number < 90),
    ],
)
async def test_only_what_a_server_refuses_again_after_it_stored_others_dies(
    whole: bool, is_bad: Callable[[int], bool]
) -> None:
    documents = [document(number) for number in range(100)]
    server = Server([one for number, one in enumerate(documents) if is_bad(number)], whole=whole)
    written = await writer(server)(documents, never)
    dead = [documents[place] for place, outcome in enumerate(written.outcomes) if outcome is Outcome.DEAD]
    assert set(dead) == server.bad
    assert set(written.errors) == {documents.index(one) for one in dead}
    assert sorted(server.taken) == sorted(set(documents) - server.bad), "each good one is written once"


@pytest.mark.parametrize("whole", [True, False])
async def test_a_server_that_refuses_everything_kills_nothing_and_is_not_asked_for_each(whole: bool) -> None:
    documents = [document(number) for number in range(1000)]
    server = Server([], whole=whole)
    server.sick = True
    ambiguous = 0

    def on_ambiguous() -> None:
        nonlocal ambiguous
        ambiguous += 1

    writing = asyncio.ensure_future(writer(server)(documents, on_ambiguous))

    async def tried() -> bool:
        return ambiguous >= 5

    await eventually(tried, "it is tried again and again")
    assert server.asked <= (ambiguous + 1) * 65
    assert not writing.done()
    server.sick = False
    assert (await writing).outcomes == [Outcome.STORED] * 1000
    assert sorted(server.taken) == sorted(documents)


async def test_a_server_that_falls_ill_in_the_middle_kills_nothing() -> None:
    documents = [document(number) for number in range(64)]
    server = Server([documents[0]])
    ill_after = server.write

    async def write(some: Sequence[bytes]) -> Written:
        # From here on it refuses with another code than that of the bad document.
        if len(server.taken) >= 32 and server.sick:
            raise WriteRefused("ill", UNKNOWN + 1, certain=False)
        return await ill_after(some)

    server.sick = False
    server.write = write  # type: ignore[method-assign,assignment]
    write_all = writer(server, hold_s=0.1)

    async def fall_ill() -> None:
        while len(server.taken) < 32:
            await asyncio.sleep(0)
        server.sick = True

    writing = asyncio.gather(write_all(documents, lambda: None), fall_ill())
    written, _ = await writing
    assert [place for place, outcome in enumerate(written.outcomes) if outcome is Outcome.DEAD] == [0]


async def test_an_ambiguous_document_lets_others_pass_and_is_dead_once_they_are_stored() -> None:
    harness = Harness([Message.of([document(1)])], writes_in_flight=1)
    server = Server([document(1)])
    harness.store.write = server.write  # type: ignore[method-assign]
    task = asyncio.ensure_future(harness.persister.run(harness.stop))

    async def tried() -> bool:
        return server.asked > 5

    await eventually(tried, "it is tried")
    assert not harness.dead.messages
    harness.queue.deliver(Message.of([document(2)]), 2)
    async with asyncio.timeout(5):
        await harness.queue.settled.wait()
    harness.stop.set()
    await task
    assert [(dead.body, dead.headers["x-reason"]) for dead in harness.dead.messages] == [(document(1), "refused")]
    assert server.taken == [document(2)]


async def test_only_the_batch_that_is_not_done_is_delivered_again_after_it_was_held_for_too_long() -> None:
    harness = Harness([Message.of([document(1)])], hold_s=0.3)
    write = harness.store.write

    async def without_the_first(documents: Sequence[bytes]) -> Written:
        if document(1) in documents:
            raise WriteFailed("away")
        return await write(documents)

    harness.store.write = without_the_first  # type: ignore[method-assign]
    task = asyncio.ensure_future(harness.persister.run(harness.stop))
    await asyncio.sleep(0.05)
    for tag in range(2, 8):
        harness.queue.deliver(Message.of([document(tag)]), tag)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(task, 5)
    assert raised.group_contains(HeldTooLongError)
    assert list(harness.queue.open) == [1]
    assert harness.queue.stopped, "acknowledging makes room, and nothing must come into it"
    assert all(not multiple for _, multiple in harness.queue.acknowledged)


# Codes of MongoDB

AWAY = (6, 7, 13, 18, 28, 50, 64, 79, 89, 91, 100, 112, 133, 189, 202, 262, 8000, 9001, 10107, 11600, 11602, 13435)


@pytest.mark.parametrize("code", [*AWAY, 13436, 14031, None])
async def test_what_a_server_says_of_itself_is_an_outage(code: int | None) -> None:
    assert is_outage(code)
    with pytest.raises(WriteFailed):
        ToMongoDB._result_of({"writeErrors": [{"index": 0, "code": code, "errmsg": "no"}]}, 2)


def test_a_label_makes_any_code_an_outage_and_no_code_of_a_document_is_one() -> None:
    assert is_outage(UNKNOWN, {"errorLabels": ["RetryableWriteError"]})
    assert not any(is_outage(code) for code in (*DOCUMENT_ERRORS, UNKNOWN, 2, 9, 14))


def nested(number: int, depth: int) -> bytes:
    """Return a document whose value is nested this deeply."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return bson.encode(bson.decode(document(number), AS_MILLISECONDS) | {"value": value})


@pytest.mark.parametrize("depth", [190, 250, 900])
async def test_a_document_that_is_nested_too_deeply_for_mongodb_is_dead_alone(
    mongodb_database: tuple[str, str], depth: int
) -> None:
    url, name = mongodb_database
    bad = nested(3, depth)
    harness = Harness([Message.of([document(1), document(2), bad, document(4)]), Message.of([nested(5, depth)])])
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=10) as store:
        harness.replace_store(store)
        await harness.run()
    assert sorted(dead.body for dead in harness.dead.messages) == sorted([bad, nested(5, depth)])
    assert {dead.headers["x-reason"] for dead in harness.dead.messages} == {"refused"}
    assert [item["value"] for item in stored(mongodb_database)] == [1, 2, 4]
