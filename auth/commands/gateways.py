"""AUTH → GATEWAYS → AUTH: which session of a device is the newest, a command to it, and the outcome back.

Sessions are known by presence. A process that starts, or has lost the broker, asks every gateway to broadcast its
sessions again; until they have had the time to, a device that is not known is not taken for offline.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from auth.commands.command import Command
from broker.commands import AnnounceSessions, Order, Reply, SendCommand, decode_reply, encode_order
from broker.interface import Broadcaster, Broker, BrokerRefused, BrokerUnavailable, Subscriber
from broker.presence import Alive, Connected, Disconnected, Event, PresenceState, SessionKey, decode_event
from broker.topology import COMMANDS_EXCHANGE, PRESENCE_EXCHANGE, REPLIES_EXCHANGE
from runtime.background import background
from runtime.logs import logger
from runtime.times import now_ms

log = logger("auth.commands")

# Events queued by the subscribers.
MAX_QUEUED = 10_000
PRUNE_EVERY_S = 5.0
# Gateways broadcast their sessions within 0.6 s of being asked.
COMPLETE_AFTER_S = 1.5
# They are asked once more, for those that were connecting to the broker themselves.
ASK_AGAIN_S = 6.0
CHECK_EVERY_S = 0.5
# How long a command waits for the sessions to be complete, before the broker counts as away.
WAIT_COMPLETE_S = 4.0

OnSent = Callable[[Command], Awaitable[None]]
"""Called when a command is on its way from the gateway to the device."""
OnConnected = Callable[[str, str], None]
"""Called with owner and device when a device has connected, or was not known to be."""


async def _ignore(_: Command) -> None:
    return


class Gateways:
    """The gateways, as one instance of `auth` sees them."""

    def __init__(self, orders: Broadcaster, replies: Subscriber, presence: Subscriber) -> None:
        self._id = f"auth-{secrets.token_hex(8)}"
        self._orders = orders
        self._replies = replies
        self._presence = presence
        self._state = PresenceState()
        self._complete = asyncio.Event()
        # By command: the replies that have arrived, and refusals of the broker.
        self._waiting: dict[str, asyncio.Queue[Reply | BrokerRefused]] = {}
        self._refusals = 0
        self._prune_at = 0.0
        self.on_connected: OnConnected = lambda *_: None

    @classmethod
    @asynccontextmanager
    async def connected(cls, broker: Broker) -> AsyncIterator["Gateways"]:
        """Follow the gateways while the context is open."""
        async with (
            broker.broadcaster(COMMANDS_EXCHANGE) as orders,
            broker.subscriber(REPLIES_EXCHANGE, bound=MAX_QUEUED) as replies,
            broker.subscriber(PRESENCE_EXCHANGE, bound=MAX_QUEUED) as presence,
        ):
            gateways = cls(orders, replies, presence)
            tasks = (
                gateways._receive_replies(),
                gateways._receive_refusals(),
                gateways._receive_presence(),
                gateways._keep_complete(),
            )
            async with background(*tasks, name="gateways"):
                yield gateways

    def newest(self, owner: str, device: str) -> SessionKey | None:
        """Return the newest known session of a device, or None."""
        return self._state.newest(owner, device, time.monotonic())

    async def session_of(self, owner: str, device: str) -> SessionKey | None:
        """Return the newest session of a device, or None if it has none.

        BrokerUnavailable when that is not known, because the broker is away.
        """
        if (session := self.newest(owner, device)) is None and not self._complete.is_set():
            try:
                async with asyncio.timeout(WAIT_COMPLETE_S):
                    await self._complete.wait()
            except TimeoutError as error:
                raise BrokerUnavailable("the gateways cannot be reached") from error
            session = self.newest(owner, device)
        return session

    def end(self, owner: str, device: str, session: SessionKey) -> None:
        """Record that a session has ended, as its gateway says."""
        self._state.apply(Disconnected(owner, device, session, now_ms()), time.monotonic())

    async def deliver(
        self, command: Command, session: SessionKey, *, within_s: float, on_sent: OnSent = _ignore
    ) -> Reply:
        """Send a command to a session and return its outcome; `unanswered` when none comes within `within_s`.

        BrokerUnavailable when it was not sent; BrokerRefused when the broker takes no commands from this process.
        """
        order = SendCommand(
            command.id,
            command.owner_id,
            command.device_id,
            session,
            self._id,
            command.name,
            msgspec.Raw(command.payload.encode()),
            command.timeout_ms,
        )
        replies = self._waiting[command.id] = asyncio.Queue()
        is_sent = False
        try:
            self._send(order)
            async with asyncio.timeout(within_s):
                while True:
                    reply = await replies.get()
                    if isinstance(reply, BrokerRefused):
                        if not is_sent:
                            raise reply
                    elif reply.outcome == "sent":
                        is_sent = True
                        await on_sent(command)
                    else:
                        return reply
        except TimeoutError:
            return Reply(self._id, command.id, "unanswered")
        finally:
            if self._waiting.get(command.id) is replies:
                del self._waiting[command.id]

    def _send(self, order: Order) -> None:
        dropped = self._orders.dropped
        self._orders.broadcast(encode_order(order))
        if self._orders.dropped != dropped:
            raise BrokerUnavailable("the gateways cannot be reached")

    async def _receive_replies(self) -> None:
        async for payload in self._replies:
            try:
                reply = decode_reply(payload)
            except msgspec.DecodeError as error:
                log.debug("A reply could not be decoded.", error=str(error))
                continue
            if reply.to == self._id and (waiting := self._waiting.get(reply.id)) is not None:
                waiting.put_nowait(reply)

    async def _receive_refusals(self) -> None:
        """Tell the commands whose gateway has said nothing that they were not sent."""
        while True:
            refused = await self._orders.until_refused()
            self._refusals += 1
            for waiting in self._waiting.values():
                waiting.put_nowait(refused)

    async def _receive_presence(self) -> None:
        async for payload in self._presence:
            try:
                event = decode_event(payload)
            except msgspec.DecodeError as error:
                log.debug("A presence event could not be decoded.", error=str(error))
                continue
            self._apply(event, time.monotonic())

    def _apply(self, event: Event, now: float) -> None:
        appeared: list[tuple[str, str]] = []
        if isinstance(event, Connected):
            appeared = [(event.owner, event.device)]
        elif isinstance(event, Alive):
            listed = ((session.owner, session.device) for session in event.sessions)
            appeared = [device for device in listed if self._state.newest(*device, now) is None]
        self._state.apply(event, now)
        for owner, device in appeared:
            self.on_connected(owner, device)
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY_S
            self._state.forget(now)

    async def _keep_complete(self) -> None:
        """Ask for all sessions at the start and after each loss of the broker."""
        while True:
            refusals = self._refusals
            if await self._reachable() and self._ask():
                await asyncio.sleep(COMPLETE_AFTER_S)
                if self._refusals != refusals:  # the gateways were not asked
                    continue
                self._complete.set()
                ask_again_at = time.monotonic() + ASK_AGAIN_S
                while await self._reachable():
                    if time.monotonic() >= ask_again_at:
                        self._ask()
                        ask_again_at = float("inf")
                    await asyncio.sleep(CHECK_EVERY_S)
                self._complete.clear()
            await asyncio.sleep(CHECK_EVERY_S / 5)

    def _ask(self) -> bool:
        try:
            self._send(AnnounceSessions())
        except BrokerUnavailable:
            return False
        return True

    async def _reachable(self) -> bool:
        try:
            await self._replies.check()
            await self._presence.check()
        except BrokerUnavailable:
            return False
        return True
