"""A receiver of webhooks that refuses, hangs, answers too late and hangs up, at random; and remembers every call."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal, Self

from aiohttp import web

from alarms.webhooks.http_client import TIMEOUT_S
from testing.servers.ports import free_port
from tests.faults.alarms.notifications import Call

Answer = Literal["ok", "refuse", "hang", "late", "hang_up", "hang_up_before_reading"]
ANSWERS: dict[Answer, int] = {
    "ok": 60,
    "refuse": 12,
    "hang": 6,
    "late": 6,
    "hang_up": 8,
    "hang_up_before_reading": 8,
}
BROKEN: tuple[Answer, ...] = ("refuse", "hang", "hang_up", "hang_up_before_reading")
# Of one notification: beyond it, the pauses between attempts grow to minutes.
MAX_BAD_ANSWERS = 2
LATE_BY_S = 1.0


class Receiver:
    """Takes webhooks at any path."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._bad: Counter[str] = Counter()
        self._over = asyncio.Event()
        self.calls: list[Call] = []
        self.answers: Counter[Answer] = Counter()
        # Then nothing is taken; and at the end of a run everything is.
        self.is_broken = False
        self.is_good = False
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def listening(cls, rng: random.Random) -> AsyncIterator[Self]:
        """Listen on loopback while the context lasts."""
        receiver = cls(rng)
        app = web.Application()
        app.router.add_post("/{path:.*}", receiver._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        port = free_port()
        receiver.url = f"http://127.0.0.1:{port}"
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield receiver
        finally:
            receiver._over.set()
            await runner.cleanup()

    def _next_answer(self, webhook_id: str) -> Answer:
        if self.is_broken:
            return self._random.choice(BROKEN)
        if self.is_good or self._bad[webhook_id] >= MAX_BAD_ANSWERS:
            return "ok"
        (answer,) = self._random.choices(list(ANSWERS), list(ANSWERS.values()))
        return answer

    async def _take(self, request: web.Request) -> web.Response:
        webhook_id = request.headers["webhook-id"]
        answer = self._next_answer(webhook_id)
        self._bad[webhook_id] += answer != "ok"
        self.answers[answer] += 1
        if answer == "hang_up_before_reading":
            _hang_up(request)
            return web.Response()
        body = await request.read()
        if answer in ("hang", "late"):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), TIMEOUT_S + LATE_BY_S + 5 * (answer == "hang"))
        if answer in ("hang", "hang_up"):
            _hang_up(request)
        self.calls.append(
            Call(
                webhook_id,
                f"{self.url}{request.path}",
                request.headers["webhook-timestamp"],
                request.headers["webhook-signature"],
                body,
                accepted=answer in ("ok", "late"),
            )
        )
        return web.Response(status=500 if answer == "refuse" else 200)


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
