"""A fake Tidegate on a real socket that can be scripted to fail, and records every identity that it receives."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import socketio
from aiohttp import web

from runtime.http.listen import listen
from runtime.http.problems import Handler

DROP = "drop"
CUT = "cut"
Action = str | dict[str, Any]


class FakeTidegate:
    """Acknowledges events as `script` says, then with `accepted`. Tokens are `token/<device id>/<n>`."""

    def __init__(self) -> None:
        self.url = ""
        self.script: deque[Action] = deque()
        self.http_script: deque[Action | int] = deque()
        self.events: list[tuple[str, str, list[dict[str, Any]]]] = []
        self.accepted: set[tuple[str, str, int, int]] = set()
        self.refusals: dict[str, deque[dict[str, Any]]] = {}
        # Retry-After of upgrades refused with 503, and reasons of connections closed with 1013.
        self.not_upgraded: deque[int] = deque()
        self.closed_temporarily: deque[str] = deque()
        self.reject_value: object = None
        self.users: dict[str, str] = {}
        # Owners by token, for users other than the one who logs in.
        self.owners: dict[str, str] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        self.logins = self.tokens = self.connects = 0
        self.calls_before_expiry = 10**9
        self.busy_answers = 0
        self._sids: dict[str, str] = {}
        self._released = asyncio.Event()
        self._changed = asyncio.Condition()
        self.sio = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"], cors_allowed_origins=None)
        self.sio.on("connect", self._connect)
        self.sio.on("reading", self._one)
        self.sio.on("readings", self._many)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition is true; it is checked after each event."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def identities(self, event: int) -> list[tuple[int, int]]:
        """Return the identities of one received event."""
        return [(item["ts"], item.get("seq", 0)) for item in self.events[event][2]]

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        device = auth["token"].split("/")[1]
        self.connects += 1
        if self.closed_temporarily:
            reason = self.closed_temporarily.popleft().encode()
            close = bytes((0x88, 2 + len(reason))) + (1013).to_bytes(2, "big") + reason
            environ["aiohttp.request"].transport.write(close)
            await self._released.wait()
        if self.refusals.get(device):
            data = self.refusals[device].popleft()
            raise socketio.exceptions.ConnectionRefusedError("refused", data)
        self._sids[sid] = device
        await self._notify()

    async def _one(self, sid: str, reading: dict[str, Any]) -> Any:
        return await self._event(sid, "reading", [reading])

    async def _many(self, sid: str, readings: list[dict[str, Any]]) -> Any:
        return await self._event(sid, "readings", readings)

    async def _event(self, sid: str, name: str, readings: list[dict[str, Any]]) -> Any:
        device = self._sids[sid]
        self.events.append((device, name, readings))
        await self._notify()
        action = self.script.popleft() if self.script else None
        if action == CUT:
            self.cut(sid)
            await self._released.wait()
        elif action == DROP:
            await self._released.wait()
        elif isinstance(action, dict):
            return action
        rejected = [index for index, item in enumerate(readings) if item["value"] == self.reject_value]
        good = [item for index, item in enumerate(readings) if index not in rejected]
        self.accepted |= {(device, item["sensorType"], item["ts"], item.get("seq", 0)) for item in good}
        if not rejected:
            return {"status": "accepted", "accepted": len(good)}
        items = [{"index": index, "code": "invalid_value", "detail": "no"} for index in rejected]
        return {"status": "partial", "accepted": len(good), "rejected": items}

    def cut(self, sid: str) -> None:
        """Abort the connection without a close."""
        eio_sid = self.sio.manager.eio_sid_from_sid(sid, "/")
        self.sio.environ[eio_sid]["aiohttp.request"].transport.abort()

    def cut_all(self) -> None:
        """Abort every connection."""
        for sid in list(self._sids):
            if self.sio.manager.is_connected(sid, "/"):
                self.cut(sid)

    # HTTP

    @web.middleware
    async def _before_the_upgrade(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/socket.io") and self.not_upgraded:
            self.connects += 1
            response = _problem(503, "Come back later.")
            response.headers["Retry-After"] = str(self.not_upgraded.popleft())
            return response
        return await handler(request)

    async def _sign_up(self, request: web.Request) -> web.Response:
        body = await request.json()
        if len(body["password"]) < 8:
            return _problem(422, "The password cannot be used.")
        if body["email"] in self.users:
            return _problem(409, "This e-mail address has an account.")
        self.users[body["email"]] = body["password"]
        return web.json_response({"id": "u"}, status=201)

    async def _log_in(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.users.get(body["email"]) != body["password"]:
            return _problem(401, "E-mail address or password is wrong.")
        self.logins += 1
        answer = {"accessToken": f"user-{self.logins}", "tokenType": "Bearer", "expiresIn": 3600, "refreshToken": "r"}
        return web.json_response(answer)

    async def _readings(self, request: web.Request) -> web.StreamResponse:
        """Accept readings over HTTP for the device in the header; `http_script` is like `script`, with statuses."""
        device, readings = request.headers["X-Device-Id"], await request.json()
        self.events.append((device, "http", readings))
        await self._notify()
        if refused := self._guard(request):
            return refused
        action = self.http_script.popleft() if self.http_script else 202
        if action == CUT and request.transport is not None:
            request.transport.abort()
            await self._released.wait()
        elif action == DROP:
            await self._released.wait()
        elif isinstance(action, int) and action != 202:
            return _problem(action, "Not this.")
        rejected = [index for index, item in enumerate(readings) if item["value"] == self.reject_value]
        good = [item for index, item in enumerate(readings) if index not in rejected]
        self.accepted |= {(device, item["sensorType"], item["ts"], item.get("seq", 0)) for item in good}
        items = [{"index": index, "code": "invalid_value", "detail": "no"} for index in rejected]
        return web.json_response({"accepted": len(good), "rejected": items}, status=202)

    def _guard(self, request: web.Request) -> web.Response | None:
        if self.busy_answers > 0:
            self.busy_answers -= 1
            response = _problem(503, "Come back later.")
            response.headers["Retry-After"] = "0"
            return response
        if self._bearer(request) in self.owners:
            return None
        self.calls_before_expiry -= 1
        if self.calls_before_expiry == 0 or request.headers.get("Authorization") != f"Bearer user-{self.logins}":
            return _problem(401, "The token has expired.")
        return None

    @staticmethod
    def _bearer(request: web.Request) -> str:
        return request.headers.get("Authorization", "").removeprefix("Bearer ")

    async def _claims(self, request: web.Request) -> web.Response:
        if refused := self._guard(request):
            return refused
        owner = self.owners.get(self._bearer(request), "u")
        claims = {"iss": "i", "aud": "tidegate", "sub": owner, "iat": 1, "exp": 2, "jti": "j", "owner": owner}
        return web.json_response({**claims, "scope": "devices:manage", "gen": 0, "sid": "s"})

    async def _find(self, request: web.Request) -> web.Response:
        if refused := self._guard(request):
            return refused
        name = request.query["name"]
        return web.json_response({"items": [item for item in self.devices.values() if item["name"] == name]})

    async def _register(self, request: web.Request) -> web.Response:
        if refused := self._guard(request):
            return refused
        body = await request.json()
        number = len(self.devices) + 1
        name = body.get("name", f"device-{number}")
        if any(item["name"] == name for item in self.devices.values()):
            return _problem(409, "You have a device of this name.")
        device = {**body, "id": f"d{number}", "name": name, "createdAt": "2026-01-01T00:00:00.000Z"}
        self.devices[device["id"]] = device
        return web.json_response(device, status=201)

    async def _token(self, request: web.Request) -> web.Response:
        if refused := self._guard(request):
            return refused
        self.tokens += 1
        return web.json_response(
            {"token": f"token/{request.match_info['id']}/{self.tokens}", "expiresIn": 1}, status=201
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeTidegate"]:
        """Serve on a free port."""
        app = web.Application(middlewares=[self._before_the_upgrade])
        app.add_routes(
            [
                web.post("/user/signup", self._sign_up),
                web.post("/user/login", self._log_in),
                web.get("/user/token", self._claims),
                web.post("/readings", self._readings),
                web.get("/devices", self._find),
                web.post("/devices", self._register),
                web.post("/devices/{id}/token", self._token),
            ]
        )
        self.sio.attach(app, socketio_path="socket.io")
        app.on_shutdown.append(self._end)
        async with listen(app, "127.0.0.1", 0) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self

    async def _end(self, _: web.Application) -> None:
        self._released.set()
        await self.sio.shutdown()


def _problem(status: int, detail: str) -> web.Response:
    body = json.dumps({"type": "about:blank", "title": "no", "status": status, "detail": detail})
    return web.Response(status=status, text=body, content_type="application/problem+json")
