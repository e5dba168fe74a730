"""READER → BROWSERS: `GET /live`, Server-Sent Events of readings as they are stored, over a long-lived connection.

A feed that was cut resumes from its `Last-Event-ID`: the readings missed are backfilled from history. For one series
that is exact, except for readings received late; for several it goes by the time of receipt, with an overlap of 2 s. So
a reading may be sent twice, recognizable by its identity, and one that history keeps may be skipped.

A feed begins with an id, so that one cut before its first reading resumes as well. That line, comments and `retry` end
with a single newline: an empty line ends an event, and httpx-sse and fetch-event-source pass on empty events.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from msgspec import UNSET

from access.revocations import RevocationList, revocation_keys_of
from reader.history.from_mongodb import FromMongoDB
from reader.http.concurrency import ConcurrencyLimiter
from reader.http.queries import LAST_MS, LiveQuery, invalid_parameter
from reader.http.request_guard import RequestGuard
from reader.live.backfill import Backfill, start_position
from reader.live.feed import Feed
from reader.live.from_live import FromLive
from reader.live.owner_feeds import id_line
from reader.metrics import ReaderMetrics
from reader.responses import abort
from readings.keys import Position
from runtime.background import background
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.logs import logger
from runtime.times import now_ms

log = logger("reader.live")

EVENT_STREAM = "text/event-stream"
RETRY_MS = 2000
ALARMS_SCOPE = "alarms:manage"
# How often the tokens of all feeds are checked for expiry.
CHECK_EXPIRY_EVERY_S = 0.5
# The first id of a feed of some devices is this old: one that is cut before its first event misses nothing if
# persisters lag less, and gets the readings of that time again, thinned.
LIMITED_LAG_MS = 60_000
_EVENT_ID = re.compile(r"(\d{1,19})-(-?\d{1,19})-(\d{1,19})")
_HEADERS = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx: do not buffer events
    "X-Content-Type-Options": "nosniff",
}


class LiveRoutes:
    """The live feed of every owner."""

    def __init__(
        self,
        guard: RequestGuard,
        limiter: ConcurrencyLimiter,
        live: FromLive,
        history: FromMongoDB,
        revocations: RevocationList,
        metrics: ReaderMetrics,
        *,
        unread_timeout_s: float,
    ) -> None:
        self._guard = guard
        self._limiter = limiter
        self._live = live
        self._backfill = Backfill(history)
        self._revocations = revocations
        self._metrics = metrics
        self._unread_timeout_s = unread_timeout_s

    def calls(self) -> list[Operation]:
        """Return the operations served."""
        return [
            Operation(
                method="GET",
                path="/live",
                handler=self._follow,
                tag="readings",
                summary="Follow your readings as they are stored",
                description="Server-Sent Events: `reading`, with a reading as data, at most 10 per second and series; "
                "`alarm`, with a change of an alarm as data, of rules that notify the feed, where the token has the "
                "scope `alarms:manage`; "
                "a comment every 10 s; `expired` or `revoked` when the token is no longer valid, then the end. A "
                "client that reconnects with `Last-Event-ID` gets what it missed in the last 10 minutes, thinned the "
                "same way; over several series with an overlap of 2 s. An `id` is sent at once, before the first "
                "event: keep each as its line arrives.",
                query=LiveQuery,
                request_headers={"Last-Event-ID": "the id of the last event received"},
                responses={200: str},
                response_types=(EVENT_STREAM,),
                problems=(403, 429),
                secured=True,
            )
        ]

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """End feeds whose tokens are revoked or expired while the context is open."""
        with self._revocations.watched_by(self._end_revoked):
            async with background(self._end_expired(), name="expiry of live feeds"):
                yield

    def end_all(self) -> None:
        """End every feed: the process stops, and clients reconnect to another."""
        for feed in self._live.feeds():
            feed.end("stopping")

    def _end_revoked(self) -> None:
        for feed in self._live.feeds():
            if self._revocations.is_revoked(feed.revocation_keys):
                feed.end("revoked")

    async def _end_expired(self) -> None:
        """End feeds whose tokens expire. A timer would be wrong after a clock correction or a sleep of the host."""
        while True:
            await asyncio.sleep(CHECK_EXPIRY_EVERY_S)
            now = time.time()
            for feed in self._live.feeds():
                if feed.expires_at <= now:
                    feed.end("expired")

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        claims = await self._guard.claims(request)
        query = read_query(request, LiveQuery)
        since = _parse_event_id(request.headers.get("Last-Event-ID", ""))
        response = web.StreamResponse(headers=_HEADERS)
        if request.method == "HEAD":
            return response
        wanted = (
            None if query.device is UNSET else query.device,
            None if query.sensor_type is UNSET else query.sensor_type,
        )
        revocation_keys, unread_timeout_s = revocation_keys_of(claims), self._unread_timeout_s
        feed = Feed(
            wanted,
            claims.devices,
            revocation_keys,
            claims.exp,
            self._metrics,
            sees_alarms=claims.allows(ALARMS_SCOPE),
            unread_timeout_s=unread_timeout_s,
        )
        async with self._limiter.slot(claims.owner):
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
        """Write the backfill and then live events, until the feed ends or its client disconnects."""
        try:
            async with feed.with_close_timeout():
                await response.prepare(request)
                # A key for some devices must not learn when the last reading of any device was received.
                limited = feed.within is not None
                last_received_ms = now_ms() - LIMITED_LAG_MS if limited else self._live.last_received_ms(owner)
                start = since or start_position(feed.wanted, last_received_ms)
                await feed.write(response, f"retry: {RETRY_MS}\n".encode() + id_line(*start) + b": live\n")
                known = await self._backfill.fill(response, owner, feed, since)
                self._live.resumed(owner, feed, known)
                await feed.write_to(response)
        except TimeoutError:
            feed.end("slow")
            abort(request)
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
        raise invalid_parameter("Last-Event-ID", "this is not an event id of this feed")
    return received, (ts_ms, seq)
