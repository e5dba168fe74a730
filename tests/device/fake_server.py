"""A small server for the Python library: it answers what the test wants, and records what it was asked."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import socketio
from aiohttp import web

from testing.issuer import Issuer
from testing.servers.ports import free_port

ISSUING = Issuer()


def accepted(readings: list[dict[str, Any]]) -> Any:
    return {"status": "accepted", "accepted": len(readings)}


class FakeServer:
    """`answer` is called with the readings of each event; `stored_answer` is the one of `POST /readings/stored`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.answer: Callable[[list[dict[str, Any]]], Any] = accepted
        self.refuses: Callable[[str], str | None] = lambda _: None
        self.stored_answer: Callable[[Any], tuple[int, Any]] = lambda _: (404, None)
        self.events: list[list[dict[str, Any]]] = []
        self.auths: list[dict[str, Any]] = []
        self.renewals: list[str] = []
        self.authenticated: list[str] = []
        self.questions: list[Any] = []
        self.sessions: list[str] = []
        self.sio = socketio.AsyncServer(async_mode="aiohttp", cors_allowed_origins=[])
        self.sio.on("connect", self._connect)
        self.sio.on("reading", self._take_one)
        self.sio.on("readings", self._take)
        self.sio.on("authenticate", self._authenticate)

    @property
    def values(self) -> list[Any]:
        return [reading["value"] for event in self.events for reading in event]

    async def call(self, event: str, payload: Any) -> Any:
        return await self.sio.call(event, payload, to=self.sessions[-1], timeout=5)

    async def emit(self, event: str, payload: Any) -> None:
        await self.sio.emit(event, payload, to=self.sessions[-1])

    async def drop(self) -> None:
        await self.sio.disconnect(self.sessions[-1])

    async def connected(self, times: int = 1) -> None:
        async with asyncio.timeout(60):
            while len(self.sessions) < times:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # until the answer to CONNECT is on its way

    async def _connect(self, sid: str, _: Any, auth: dict[str, Any]) -> None:
        self.auths.append(auth)
        if (code := self.refuses(auth["token"])) is not None:
            raise socketio.exceptions.ConnectionRefusedError("refused", {"code": code})
        self.sessions.append(sid)

    async def _take_one(self, sid: str, reading: dict[str, Any]) -> Any:
        return await self._take(sid, [reading])

    async def _take(self, _: str, readings: list[dict[str, Any]]) -> Any:
        self.events.append(readings)
        result = self.answer(readings)
        return await result if asyncio.iscoroutine(result) else result

    async def _authenticate(self, _: str, payload: dict[str, Any]) -> Any:
        self.authenticated.append(payload["token"])
        return {"status": "accepted", "expiresAt": "2026-01-01T00:00:00.000Z"}

    async def renew(self, request: web.Request) -> web.Response:
        self.renewals.append(request.headers["Authorization"])
        return web.json_response({"token": f"renewed-{len(self.renewals)}", "expiresIn": 60}, status=201)

    async def stored(self, request: web.Request) -> web.Response:
        self.questions.append(await request.json())
        status, body = self.stored_answer(self.questions[-1])
        return web.json_response(body, status=status)


@asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    port = free_port()
    server = FakeServer(port)
    app = web.Application()
    server.sio.attach(app)
    app.router.add_post("/devices/device-1/token", server.renew)
    app.router.add_post("/readings/stored", server.stored)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield server
    finally:
        await server.sio.shutdown()
        await runner.cleanup()
