"""A server that answers as the test says, and speaks of receipts and commands as docs/protocol.md has them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import socketio
from aiohttp import web

from runtime.http.listen import listen
from testing.waiting import eventually

Answer = Callable[[list[dict[str, Any]]], dict[str, Any]]


class FakeServer:
    """One server; `answer` acknowledges events, `stored` is what it has, by sensorType: (ts, seq)."""

    def __init__(self) -> None:
        self.url = ""
        self.auth: list[dict[str, Any]] = []
        self.events: list[list[dict[str, Any]]] = []
        self.asked: list[dict[str, Any]] = []
        self.stored: dict[str, list[list[int]]] = {}
        # That of `POST /readings/stored`.
        self.status = 200
        self.answer: Answer = lambda readings: {"status": "accepted", "accepted": len(readings)}
        self.sio = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"])
        self.sio.on("connect", self._connect)
        self.sio.on("readings", self._readings)
        self.sids: list[str] = []
        # Codes with which the next connects are refused.
        self.refusals: list[str] = []

    async def _connect(self, sid: str, _: object, auth: dict[str, Any]) -> None:
        self.auth.append(auth)
        if self.refusals:
            raise socketio.exceptions.ConnectionRefusedError("refused", {"code": self.refusals.pop(0)})
        self.sids.append(sid)

    async def _readings(self, _: str, readings: list[dict[str, Any]]) -> dict[str, Any]:
        self.events.append(readings)
        return self.answer(readings)

    async def post(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert request.headers["Authorization"] == "Bearer a-token"
        self.asked.append(body)
        if self.status != 200:
            return web.Response(status=self.status)
        items = [
            {
                "sensorType": item["sensorType"],
                "readings": [one for one in item["readings"] if one in self.stored.get(item["sensorType"], [])],
            }
            for item in body["items"]
        ]
        return web.json_response({"items": items})

    @property
    def readings(self) -> list[dict[str, Any]]:
        return [reading for event in self.events for reading in event]

    async def received(self, count: int) -> None:
        async def reached() -> bool:
            return len(self.readings) >= count

        await eventually(reached, f"{count} readings are received")

    async def receipts(self, *readings: dict[str, Any]) -> None:
        items = [{"sensorType": one["sensorType"], "readings": [[one["ts"], one["seq"]]]} for one in readings]
        await self.sio.emit("stored", {"items": items}, to=self.sids[-1])

    async def command(self, **fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.sio.call("command", fields, to=self.sids[-1], timeout=10)
        return answer


@asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    app = web.Application()
    server.sio.attach(app)
    app.router.add_post("/readings/stored", server.post)
    async with listen(app, "127.0.0.1", 0) as port:
        server.url = f"http://127.0.0.1:{port}"
        yield server
