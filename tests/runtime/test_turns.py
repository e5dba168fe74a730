"""Much input at once: all of it is processed, in order, some in each turn of the event loop."""

import asyncio
from typing import Any

import aiohttp
from aiohttp import web

from runtime import turns
from runtime.http import malformed
from runtime.http.listen import listen
from runtime.turns import Turns

LIMIT = 8


class Connection:
    def __init__(self, number: int, processed: list[tuple[int, bytes]]) -> None:
        self.number = number
        self.processed = processed
        self.held = False
        self.gone = False
        self.failed = False

    @property
    def has_gone(self) -> bool:
        return self.gone

    def hold(self) -> None:
        assert not self.held
        self.held = True

    def read_on(self) -> None:
        assert self.held
        self.held = False

    def fail(self) -> None:
        self.failed = True

    def process(self, data: bytes) -> None:
        assert not self.held
        if data == b"fails":
            raise ZeroDivisionError
        self.processed.append((self.number, data))


async def test_some_are_processed_in_each_turn_in_the_order_of_their_arrival() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns(LIMIT)
    connections = [Connection(number, processed) for number in range(3 * LIMIT)]
    for one in connections:
        waiting.take(one, b"%d" % one.number)
    counts = [len(processed)]
    assert [one.held for one in connections] == [one.number >= LIMIT for one in connections]
    for _ in range(2):
        await asyncio.sleep(0)
        counts.append(len(processed))
    assert counts == [LIMIT, 2 * LIMIT, 3 * LIMIT]
    assert processed == [(number, b"%d" % number) for number in range(3 * LIMIT)]
    assert not any(one.held for one in connections)


async def test_what_begins_within_the_limit_is_ended() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns(100)
    for number in range(5):
        waiting.take(Connection(number, processed), b"x" * 60, 60)
    counts = [len(processed)]
    for _ in range(2):
        await asyncio.sleep(0)
        counts.append(len(processed))
    assert counts == [2, 4, 5]


async def test_one_that_comes_later_waits_behind_those_that_wait() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns(LIMIT)
    for number in range(LIMIT + 3):
        waiting.take(Connection(number, processed), b"x")
    asyncio.get_running_loop().call_soon(waiting.take, Connection(-1, processed), b"x")
    for _ in range(4):
        await asyncio.sleep(0)
    assert [number for number, _ in processed] == [*range(LIMIT + 3), -1]


async def test_one_that_has_gone_meanwhile_takes_nobodys_turn() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns(LIMIT)
    connections = [Connection(number, processed) for number in range(3 * LIMIT)]
    for one in connections:
        waiting.take(one, b"x")
    for one in connections[LIMIT : 2 * LIMIT]:
        one.gone = True
    await asyncio.sleep(0)
    assert [number for number, _ in processed] == [*range(LIMIT), *range(2 * LIMIT, 3 * LIMIT)]


async def test_one_that_fails_is_ended_and_those_behind_it_have_their_turn() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns(1)
    connections = [Connection(number, processed) for number in range(6)]
    for one in connections:
        waiting.take(one, b"fails" if one.number in (2, 3) else b"x")
    for _ in range(8):
        await asyncio.sleep(0)
    assert [number for number, _ in processed] == [0, 1, 4, 5]
    assert [one.number for one in connections if one.failed] == [2, 3]


async def test_turns_are_counted_anew() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns(LIMIT)
    for number in range(5 * LIMIT):
        waiting.take(Connection(number, processed), b"x")
        assert len(processed) == number + 1
        if number % LIMIT == LIMIT - 1:
            await asyncio.sleep(0)


async def test_what_waits_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING_BYTES", 1000)
    processed: list[tuple[int, bytes]] = []
    waiting = Turns(1)
    for _ in range(3):  # what has had its turn leaves room
        for number in range(10):
            waiting.take(Connection(number, processed), b"x" * 300)
        assert [number for number, _ in processed] == [0, 4, 5, 6, 7, 8, 9]
        for _ in range(5):
            await asyncio.sleep(0)
        assert [number for number, _ in processed] == [0, 4, 5, 6, 7, 8, 9, 1, 2, 3]
        processed.clear()


async def test_each_of_many_requests_at_once_is_answered(monkeypatch: Any) -> None:
    monkeypatch.setattr(malformed, "CONNECTIONS_A_TURN", 1)

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app = web.Application()
    app.router.add_post("/", echo)
    async with (
        listen(app, "127.0.0.1", 0) as port,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):

        async def sent(number: int) -> bool:
            body = b"%d" % number * 100_000
            async with http.post(f"http://127.0.0.1:{port}/", data=body) as response:
                return await response.read() == body

        assert all(await asyncio.gather(*map(sent, range(200))))


async def test_one_that_waits_for_its_turn_is_not_taken_to_be_slow(monkeypatch: Any) -> None:
    monkeypatch.setattr(malformed, "CONNECTIONS_A_TURN", 1)

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    taken = Turns.take
    held: list[tuple[Any, ...]] = []

    def take(turns: Turns, connection: Any, data: bytes) -> None:
        connection.hold()
        held.append((turns, connection, data))

    monkeypatch.setattr(Turns, "take", take)
    async with listen(app, "127.0.0.1", 0, first_request_s=0.1) as port, aiohttp.ClientSession() as http:
        asked = asyncio.create_task(http.get(f"http://127.0.0.1:{port}/"))
        slow, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await slow.read() == b"", "one that sends nothing is closed"
        writer.close()
        assert not asked.done()
        taken(*held[0])
        async with await asked as response:
            assert response.status == 200
