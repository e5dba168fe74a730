"""READER → BROWSERS: `GET /live`, Server-Sent Events of what is stored right now, over a connection that stays.

A feed that was cut goes on where it was: `Last-Event-ID` says where that is, and history has what came meanwhile. For
one series that is exact, but for readings that were received late; for several it goes by the time of receipt, with an
overlap of 2 s. So a reading may come twice, known by its identity. It may skip what history keeps.

A feed begins with an id, so that one which is cut before its first reading goes on as well. That line, the comments and
`retry` end with one newline: an empty line ends an event, and httpx-sse and fetch-event-source hand on empty ones.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from msgspec import UNSET

from access.revocations import RevocationList, revocation_keys_of
from reader.history.export import cut
from reader.history.from_mongodb import FromMongoDB
from reader.http.concurrency import Gate
from reader.http.queries import LAST_MS, LiveQuery, wrong
from reader.http.request_guard import Asking
from reader.live.audience import id_line
from reader.live.backfill import LiveGap, beginning
from reader.live.feed import Feed
from reader.live.from_live import FromLive
from reader.metrics import ReaderMetrics
from readings.keys import Position
from runtime.background import background
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.logs import logger

log = logger("reader.live")

EVENT_STREAM = "text/event-stream"
RETRY_MS = 2000
# How often the time of day is held against the tokens of all feeds.
LOOK_EVERY_S = 0.5
_EVENT_ID = re.compile(r"(\d{1,19})-(-?\d{1,19})-(\d{1,19})")
_HEADERS = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx: hand events on as they come
    "X-Content-Type-Options": "nosniff",
}


class LiveRoutes:
    """The live feed of every owner."""

    def __init__(
        self,
        asking: Asking,
        gate: Gate,
        live: FromLive,
        history: FromMongoDB,
        revocations: RevocationList,
        metrics: ReaderMetrics,
        *,
        unread_timeout_s: float,
    ) -> None:
        self._asking = asking
        self._gate = gate
        self._live = live
        self._gap = LiveGap(history)
        self._revocations = revocations
        self._metrics = metrics
        self._unread_timeout_s = unread_timeout_s

    def calls(self) -> list[Operation]:
        """Return what is served."""
        return [
            Operation(
                method="GET",
                path="/live",
                handler=self._follow,
                tag="readings",
                summary="Follow your readings as they are stored",
                description="Server-Sent Events: `reading`, with a reading as data, at most 10 a second and series; a "
                "comment every 10 s; `expired` or `revoked` when the token is no longer good, and then the end. A "
                "client that comes back with `Last-Event-ID` is given what it missed in the last 10 minutes, thinned "
                "alike; over several series with an overlap of 2 s. There is an `id` at once, before the first event: "
                "keep each as its line comes.",
                query=LiveQuery,
                request_headers={"Last-Event-ID": "the id of the last event that was seen"},
                answers={200: str},
                answer_types=(EVENT_STREAM,),
                problems=(403, 429),
                secured=True,
            )
        ]

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """End feeds whose tokens are revoked or have expired, as long as the context lasts."""
        with self._revocations.watched_by(self._end_revoked):
            async with background(self._keep_ending(), name="live feeds' tokens"):
                yield

    def end_all(self) -> None:
        """End every feed: the process stops, and browsers go to another."""
        for feed in self._live.feeds():
            feed.end("stopping")

    def _end_revoked(self) -> None:
        for feed in self._live.feeds():
            if self._revocations.is_revoked(feed.marks):
                feed.end("revoked")

    async def _keep_ending(self) -> None:
        """End feeds with their tokens. A timer would count on when the clock is put right, or the host sleeps."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = time.time()
            for feed in self._live.feeds():
                if feed.expires_at <= now:
                    feed.end("expired")

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        claims = await self._asking.claims(request)
        query = read_query(request, LiveQuery)
        since = _parse_event_id(request.headers.get("Last-Event-ID", ""))
        response = web.StreamResponse(headers=_HEADERS)
        if request.method == "HEAD":
            return response
        wanted = (
            None if query.device is UNSET else query.device,
            None if query.sensor_type is UNSET else query.sensor_type,
        )
        marks, unread_timeout_s = revocation_keys_of(claims), self._unread_timeout_s
        feed = Feed(wanted, marks, claims.exp, self._metrics, unread_timeout_s=unread_timeout_s)
        async with self._gate.entered(claims.owner):
            with self._live.joined(claims.owner, feed):
                await self._feed(request, response, claims.owner, feed, since)
        return response

    async def _feed(
        self,
        request: web.Request,
        response: web.StreamResponse,
        owner: str,
        feed: Feed,
        since: tuple[int, Position] | None,
    ) -> None:
        """Write the gap and then what is live, until the feed ends or its browser leaves."""
        try:
            async with feed.limited():
                await response.prepare(request)
                begins = since or beginning(feed.wanted, self._live.last_received_ms(owner))
                await feed.write(response, f"retry: {RETRY_MS}\n".encode() + id_line(*begins) + b": live\n")
                known = await self._gap.fill(response, owner, feed, since)
                self._live.resumed(owner, feed, known)
                await feed.written_to(response)
        except TimeoutError:
            feed.end("slow")
            cut(request)
        except ConnectionError:
            feed.end("gone")
        finally:
            self._metrics.live_ended.labels(feed.ended or "gone").inc()


def _parse_event_id(text: str) -> tuple[int, Position] | None:
    if not text:
        return None
    found = _EVENT_ID.fullmatch(text)
    received, ts_ms, seq = (0, 0, 0) if found is None else map(int, found.groups())
    if found is None or max(map(abs, (received, ts_ms, seq))) > LAST_MS:
        raise wrong("Last-Event-ID", "this is no id of an event of this feed")
    return received, (ts_ms, seq)
