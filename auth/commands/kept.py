"""USERS' DATABASE → GATEWAYS: kept commands, delivered when their device is connected, until acknowledged or expired.

Deliveries begin when a command is kept, when a device connects, and when a lease or a pause has ended. Only the replica
that holds the rows' lease delivers them, all of a device in the order in which they were kept. A device may receive a
command again, under the same id, if its acknowledgement is lost on the way or a replica dies.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from auth.commands.command import Acknowledgement, Command
from auth.commands.gateways import Gateways, OnSent
from auth.commands.store import LEASE_MARGIN_MS, LEASE_ROWS, CommandStore
from auth.errors import NoSuchDeviceError
from auth.metrics import AuthMetrics
from broker.commands import Reply
from broker.interface import BrokerUnavailable
from broker.presence import SessionKey
from runtime.background import background
from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("auth.commands")

POLL_EVERY_S = 5.0
CLEAN_EVERY_S = 60.0
# Rows that are due, read at once; devices that have connected, looked up at once.
DUE_ROWS = 500
CONNECTED_AT_ONCE = 200
# Devices that have connected are looked up together: a gateway's restart brings thousands.
GATHER_S = 0.05
# Devices that are delivered to at once, and transactions for them at once.
MAX_DELIVERIES = 100
MAX_TRANSACTIONS = 4

Device = tuple[str, str]


class KeptCommands:
    """Delivers kept commands, as one replica of several."""

    def __init__(self, store: CommandStore, gateways: Gateways, metrics: AuthMetrics) -> None:
        self._store = store
        self._gateways = gateways
        self._metrics = metrics
        self._connected: dict[Device, None] = {}
        self._woken = asyncio.Event()
        # Devices with a task, and whether they are to be looked at once more when it ends.
        self._active: dict[Device, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_DELIVERIES)
        self._transactions = asyncio.Semaphore(MAX_TRANSACTIONS)
        self._outage_logged = False

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[None]:
        """Deliver until the context ends."""
        self._gateways.on_connected = self.on_connected
        try:
            async with background(self._run(), self._clean(), name="kept commands"):
                yield
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def on_connected(self, owner: str, device: str) -> None:
        """Look for commands of a device that has connected."""
        self._connected[owner, device] = None
        self._woken.set()

    def deliver(self, owner: str, device: str, *, due_only: bool = False) -> None:
        """Deliver a device's commands soon."""
        key = (owner, device)
        if key in self._active:
            self._active[key] = True
            return
        self._active[key] = False
        task = asyncio.ensure_future(self._deliver_all(key, due_only=due_only))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        poll_at = 0.0
        while True:
            try:
                if self._connected:
                    await self._look_up_connected()
                if (now := time.monotonic()) >= poll_at:
                    poll_at = now + POLL_EVERY_S
                    for owner, device in await self._store.due_devices(DUE_ROWS):
                        self.deliver(owner, device, due_only=True)
                self._outage_logged = False
            except Problem as problem:
                self._log_outage(problem.detail)
                await asyncio.sleep(1)
            except Exception:  # a bug: the rows stay, and auth goes on serving
                log.exception("Kept commands could not be looked up.")
                await asyncio.sleep(1)
            if not self._connected:
                self._woken.clear()
            try:
                async with asyncio.timeout(max(0.0, poll_at - time.monotonic())):
                    await self._woken.wait()
                    await asyncio.sleep(GATHER_S)
            except TimeoutError:
                continue

    async def _look_up_connected(self) -> None:
        some = list(self._connected)[:CONNECTED_AT_ONCE]
        found = await self._store.waiting_of(some)
        for device in some:
            self._connected.pop(device, None)
        for owner, device_id in found:
            self.deliver(owner, device_id)

    async def _clean(self) -> None:
        while True:
            try:
                while await self._store.remove_old():
                    pass
            except Problem as problem:
                self._log_outage(problem.detail)
            except Exception:  # a bug: the rows stay, and auth goes on serving
                log.exception("Old commands could not be removed.")
            await asyncio.sleep(CLEAN_EVERY_S)

    async def _deliver_all(self, device: Device, *, due_only: bool) -> None:
        try:
            async with self._slots:
                more = True
                while more:
                    self._active[device] = False
                    more = await self._deliver_some(device, due_only=due_only) or self._active[device]
                    due_only = due_only and not self._active[device]
        except NoSuchDeviceError:
            pass
        except Problem as problem:  # the leases end by themselves
            self._log_outage(problem.detail)
        except Exception:  # a bug: the leases end by themselves
            log.exception("A device's commands could not be delivered.", device=device[1])
        finally:
            del self._active[device]

    async def _deliver_some(self, device: Device, *, due_only: bool) -> bool:
        """Deliver the oldest commands; return whether to look for more at once."""
        async with self._transactions:
            leased = await self._store.lease(*device, due_only=due_only)
        if not leased:
            return False
        session = self._gateways.newest(*device)
        if session is None:
            await self._release(leased, online=False)
            return False
        replies = await self._send_all(leased, session)
        outcomes = {reply.outcome for reply in replies}
        if "absent" in outcomes:
            self._gateways.end(*device, session)
        waiting = await self._settle(leased, replies)
        await self._release(waiting, online=not outcomes & {"absent", "lost"})
        if "absent" in outcomes:  # it may have another session
            return self._gateways.newest(*device) is not None
        return len(waiting) < len(leased) == LEASE_ROWS

    async def _send_all(self, leased: Sequence[Command], session: SessionKey) -> list[Reply]:
        sent: list[Command] = []
        marking: asyncio.Task[None] | None = None

        async def on_sent(command: Command) -> None:
            nonlocal marking
            if command.delivered_at_ms is None:
                sent.append(command)
                if marking is None:
                    marking = asyncio.ensure_future(self._mark_delivered(sent))

        replies = await asyncio.gather(*(self._send(command, session, on_sent) for command in leased))
        if marking is not None:
            await marking
        return replies

    async def _send(self, command: Command, session: SessionKey, on_sent: OnSent) -> Reply:
        within_s = (command.timeout_ms + LEASE_MARGIN_MS / 2) / 1000
        try:
            return await self._gateways.deliver(command, session, within_s=within_s, on_sent=on_sent)
        except BrokerUnavailable:
            return Reply("", command.id, "unanswered")

    async def _mark_delivered(self, sent: Sequence[Command]) -> None:
        """Record that these commands were sent, and those that are sent at the same time."""
        await asyncio.sleep(GATHER_S)
        try:
            async with self._transactions:
                await self._store.mark_delivered(sent)
        except Problem as problem:  # the time is missing in the list, nothing else
            self._log_outage(problem.detail)

    async def _settle(self, leased: Sequence[Command], replies: Sequence[Reply]) -> list[Command]:
        """Record the acknowledgements; return the commands that have none."""
        acknowledged: list[tuple[Command, Acknowledgement]] = []
        waiting = []
        for command, reply in zip(leased, replies, strict=True):
            self._metrics.command_deliveries.labels(reply.outcome).inc()
            if (acknowledgement := Acknowledgement.of(reply)) is None:
                waiting.append(command)
            else:
                acknowledged.append((command, acknowledgement))
        if acknowledged:
            async with self._transactions:
                await self._store.finish(acknowledged)
        for command, acknowledgement in acknowledged:
            log.info(
                "A kept command was acknowledged.",
                user=command.owner_id,
                device=command.device_id,
                command=command.id,
                outcome=acknowledgement.status,
            )
        return waiting

    async def _release(self, leased: Sequence[Command], *, online: bool) -> None:
        if leased:
            async with self._transactions:
                await self._store.release(leased, online=online)

    def _log_outage(self, why: str) -> None:
        if not self._outage_logged:
            self._outage_logged = True
            log.warning("Kept commands wait for the database.", why=why)
