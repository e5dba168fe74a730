"""One connection of the Python library, against a server that speaks Engine.IO badly, or says nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from device.connection import SocketIoConnection
from device.errors import DeviceRefused, NotNow
from runtime.http.listen import listen

Serve = Callable[[web.WebSocketResponse], Awaitable[None]]
OPEN = '0{"sid":"1","upgrades":[],"pingInterval":100,"pingTimeout":200,"maxPayload":1000000}'
WELCOME = '40{"sid":"2"}'


async def until_closed(socket: web.WebSocketResponse) -> list[Any]:
    return [message.data async for message in socket]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.WebSocketResponse:
        assert dict(request.query) == {"transport": "websocket", "EIO": "4"}
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await serve(socket)
        return socket

    app = web.Application()
    app.router.add_get("/socket.io/", answer)
    async with listen(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


class Device:
    """What a connection tells."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.acks: list[tuple[int, Any]] = []
        self.events: list[tuple[str, Any]] = []
        self.connection = SocketIoConnection(http, lambda *ack: self.acks.append(ack), self._take)

    async def _take(self, name: str, payload: Any) -> Any:
        self.events.append((name, payload))
        return {"took": payload}


@asynccontextmanager
async def device_at(url: str, *, opens: bool = True) -> AsyncIterator[Device]:
    async with aiohttp.ClientSession() as http:
        device = Device(http)
        try:
            if opens:
                await device.connection.open(url, {"token": "t"})
            yield device
        finally:
            await device.connection.close()


async def test_packets_are_taken_answered_or_left_out() -> None:
    got: list[Any] = []

    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(OPEN)
        got.append(await socket.receive_str())
        await socket.send_str(WELCOME)
        await socket.send_bytes(b"\x04")
        for packet in ("", "6", "2probe", "4", "43", "4312", "437[1,2", "439[]", '437[{"status":"accepted"}]', "42{}"):
            await socket.send_str(packet)
        await socket.send_str('42["stored",{"items":[]}]')
        await socket.send_str('4212["command",{"id":"1"}]')
        got.extend(await until_closed(socket))

    async with serving(serve) as url, device_at(url) as device:
        async with asyncio.timeout(10):
            while len(device.events) < 2:
                await asyncio.sleep(0.01)
        assert device.connection.next_number() == 1
        await device.connection.emit(1, "reading", '{"value":1}')
        assert device.acks == [(12, None), (9, None), (7, {"status": "accepted"})]
        assert device.events == [("stored", {"items": []}), ("command", {"id": "1"})]
        assert not device.connection.lost.is_set()
    assert got == ['40{"token":"t"}', "3probe", '4312[{"took":{"id":"1"}}]', '421["reading",{"value":1}]', "1"]


async def test_a_server_that_is_silent_for_longer_than_it_said_is_given_up() -> None:
    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(OPEN)
        await socket.receive_str()
        await socket.send_str(WELCOME)
        for _ in range(4):
            await asyncio.sleep(0.15)
            await socket.send_str("2")
        await until_closed(socket)

    async with serving(serve) as url, device_at(url) as device:
        began = asyncio.get_running_loop().time()
        request = asyncio.ensure_future(device.connection.request("authenticate", {}, 60))
        await asyncio.wait_for(device.connection.lost.wait(), 10)
        assert asyncio.get_running_loop().time() - began > 0.6
        with pytest.raises(NotNow):
            await request


@pytest.mark.parametrize(
    "first", ["", "2", "hello", "0", "0[]", "0{}", '0{"pingInterval":"a","pingTimeout":1}', '0{"pingInterval":null}']
)
async def test_what_is_no_server_of_this_protocol_is_tried_again(first: str) -> None:
    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(first)
        await until_closed(socket)

    async with serving(serve) as url, device_at(url, opens=False) as device:
        with pytest.raises(NotNow, match="no connection to"):
            await device.connection.open(url, {})


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        ('44{"message":"ended","data":{"code":"expired"}}', DeviceRefused),
        ('44{"message":"later","data":{"code":"busy"}}', NotNow),
        ("44", NotNow),
        ("41", NotNow),
        ("1", NotNow),
    ],
)
async def test_a_connect_that_is_refused_says_whether_for_good(answer: str, raised: type[Exception]) -> None:
    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(OPEN)
        await socket.receive_str()
        await socket.send_str(answer)
        await until_closed(socket)

    async with serving(serve) as url, device_at(url, opens=False) as device:
        with pytest.raises(raised):
            await device.connection.open(url, {})


async def test_a_refusal_for_now_is_one_before_and_after_the_upgrade() -> None:
    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.close(code=1013, message=b"unavailable")

    async with serving(serve) as url, device_at(url, opens=False) as device:
        with pytest.raises(NotNow, match="temporarily refused"):
            await device.connection.open(url, {})

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({}, status=503, headers={"Retry-After": "7"})

    app = web.Application()
    app.router.add_get("/socket.io/", refuse)
    async with (
        listen(app, "127.0.0.1", 0) as port,
        device_at(url, opens=False) as device,
    ):
        with pytest.raises(NotNow) as refused:
            await device.connection.open(f"http://127.0.0.1:{port}/path?of=mine", {})
        assert refused.value.retry_after_s == 7


async def test_an_event_that_is_being_answered_goes_on_when_the_connection_is_lost() -> None:
    ended = asyncio.Event()

    async def serve(socket: web.WebSocketResponse) -> None:
        await socket.send_str(OPEN)
        await socket.receive_str()
        await socket.send_str(WELCOME)
        await socket.send_str('421["command",' + json.dumps({"id": "1"}) + "]")

    async def slowly(name: str, payload: Any) -> Any:
        await asyncio.sleep(0.2)
        ended.set()

    async with serving(serve) as url, device_at(url, opens=False) as device:
        device.connection._on_event = slowly
        await device.connection.open(url, {})
        await asyncio.wait_for(device.connection.lost.wait(), 10)
        await asyncio.wait_for(ended.wait(), 10)
