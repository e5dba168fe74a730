"""Many new connections at once: each is served, in order, some in each turn of the event loop."""

import asyncio
from typing import Any, cast

import aiohttp
from aiohttp import web

from runtime.http import turns
from runtime.http.listen import listen
from runtime.http.turns import CONNECTIONS_A_TURN, Turns


class Transport:
    def __init__(self) -> None:
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Connection:
    def __init__(self, number: int, processed: list[tuple[int, bytes]]) -> None:
        self.number = number
        self.processed = processed
        self.link = Transport()
        self.transport = cast("asyncio.Transport | None", self.link)

    def process(self, data: bytes) -> None:
        assert self.link.reading
        self.processed.append((self.number, data))


async def test_some_are_processed_in_each_turn_in_the_order_of_their_arrival() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns()
    connections = [Connection(number, processed) for number in range(3 * CONNECTIONS_A_TURN)]
    for one in connections:
        waiting.begin(one, b"%d" % one.number)
    counts = [len(processed)]
    assert [one.link.reading for one in connections] == [one.number < CONNECTIONS_A_TURN for one in connections]
    for _ in range(2):
        await asyncio.sleep(0)
        counts.append(len(processed))
    assert counts == [CONNECTIONS_A_TURN, 2 * CONNECTIONS_A_TURN, 3 * CONNECTIONS_A_TURN]
    assert processed == [(number, b"%d" % number) for number in range(3 * CONNECTIONS_A_TURN)]
    assert all(one.link.reading for one in connections)


async def test_one_that_comes_later_waits_behind_those_that_wait() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns()
    for number in range(CONNECTIONS_A_TURN + 3):
        waiting.begin(Connection(number, processed), b"x")
    asyncio.get_running_loop().call_soon(waiting.begin, Connection(-1, processed), b"x")
    for _ in range(4):
        await asyncio.sleep(0)
    assert [number for number, _ in processed] == [*range(CONNECTIONS_A_TURN + 3), -1]


async def test_one_that_has_gone_meanwhile_takes_nobodys_turn() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns()
    connections = [Connection(number, processed) for number in range(3 * CONNECTIONS_A_TURN)]
    for one in connections:
        waiting.begin(one, b"x")
    for one in connections[CONNECTIONS_A_TURN : 2 * CONNECTIONS_A_TURN]:
        one.transport = None
    await asyncio.sleep(0)
    assert [number for number, _ in processed] == [
        *range(CONNECTIONS_A_TURN),
        *range(2 * CONNECTIONS_A_TURN, 3 * CONNECTIONS_A_TURN),
    ]


async def test_turns_are_counted_anew() -> None:
    processed: list[tuple[int, bytes]] = []
    waiting = Turns()
    for number in range(5 * CONNECTIONS_A_TURN):
        waiting.begin(Connection(number, processed), b"x")
        assert len(processed) == number + 1
        if number % CONNECTIONS_A_TURN == CONNECTIONS_A_TURN - 1:
            await asyncio.sleep(0)


async def test_each_of_many_requests_at_once_is_answered(monkeypatch: Any) -> None:
    monkeypatch.setattr(turns, "CONNECTIONS_A_TURN", 1)

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
    monkeypatch.setattr(turns, "CONNECTIONS_A_TURN", 1)

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    begun = Turns.begin
    held: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Turns, "begin", lambda *arguments: held.append(arguments))
    async with listen(app, "127.0.0.1", 0, first_request_s=0.1) as port, aiohttp.ClientSession() as http:
        asked = asyncio.create_task(http.get(f"http://127.0.0.1:{port}/"))
        slow, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await slow.read() == b"", "one that sends nothing is closed"
        writer.close()
        assert not asked.done()
        begun(*held[0])
        async with await asked as response:
            assert response.status == 200
