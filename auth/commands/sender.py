"""Commands that somebody waits for: sent once, to the device's newest session, and answered with its acknowledgement.

Nothing but the device's explicit `done` is reported as done. A command is sent at most once: when the connection is
lost before the acknowledgement, nobody knows whether the device has executed it, and the answer is `timeout`.
"""

import asyncio
import time
from typing import Literal

import msgspec

from auth.commands.command import Acknowledgement, Command, NewCommand
from auth.commands.gateways import Gateways
from auth.commands.kept import KeptCommands
from auth.commands.store import CommandStore
from auth.errors import AuthError
from auth.metrics import AuthMetrics
from broker.commands import Reply
from broker.interface import BrokerUnavailable
from broker.presence import SessionKey
from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("auth.commands")

# Most devices answer sooner: their commands cost no further transaction.
MARK_AFTER_S = 0.1


class DeviceOfflineError(AuthError):
    """The device has no session; it has received nothing."""


class CommandTimeoutError(AuthError):
    """The device did not acknowledge in time, or its connection was lost; it may have executed the command."""

    def __init__(self, command_id: str, reason: Literal["lost", "unanswered"]) -> None:
        super().__init__(reason)
        self.command_id = command_id
        self.reason = reason


class CommandOutcome(msgspec.Struct, frozen=True):
    """A device's acknowledgement of a command."""

    id: str
    acknowledgement: Acknowledgement


class CommandSender:
    """Sends and keeps commands."""

    def __init__(self, store: CommandStore, gateways: Gateways, kept: KeptCommands, metrics: AuthMetrics) -> None:
        self._store = store
        self._gateways = gateways
        self._kept = kept
        self._metrics = metrics

    async def keep(self, owner: str, device: str, new: NewCommand) -> Command:
        """Keep a command, to be delivered soon; raise NoSuchDeviceError or TooManyCommandsError."""
        command = await self._store.add(owner, device, new)
        self._kept.deliver(owner, device)
        return command

    async def send(self, owner: str, device: str, new: NewCommand) -> CommandOutcome:
        """Send a command and return the device's acknowledgement.

        Raises DeviceOfflineError, CommandTimeoutError, NoSuchDeviceError, TooManyCommandsError, or BrokerUnavailable
        when no gateway can be reached.
        """
        if (session := await self._gateways.session_of(owner, device)) is None:
            raise DeviceOfflineError
        command = await self._store.add(owner, device, new)
        try:
            reply = await self._deliver(command, session)
        except BrokerUnavailable:
            await self._store.discard(command)
            raise
        if reply is None:
            await self._store.discard(command)
            raise DeviceOfflineError
        self._metrics.command_deliveries.labels(reply.outcome).inc()
        if (acknowledgement := Acknowledgement.of(reply)) is not None:
            return await self._finish(command, acknowledgement)
        await self._store.expire(command, delivered=True)
        raise CommandTimeoutError(command.id, "lost" if reply.outcome == "lost" else "unanswered")

    async def _deliver(self, command: Command, session: SessionKey) -> Reply | None:
        """Return the outcome at the newest session that exists; None without one."""
        ends_at = time.monotonic() + command.timeout_ms / 1000
        answered = asyncio.Event()
        marking: asyncio.Task[None] | None = None

        async def on_sent(_: Command) -> None:
            nonlocal marking
            if marking is None:
                marking = asyncio.ensure_future(self._mark_delivered(command, answered))

        newest: SessionKey | None = session
        try:
            while newest is not None:
                within_s = max(0.0, ends_at - time.monotonic())
                reply = await self._gateways.deliver(command, newest, within_s=within_s, on_sent=on_sent)
                if reply.outcome != "absent":
                    return reply
                self._gateways.end(command.owner_id, command.device_id, newest)
                newest = self._gateways.newest(command.owner_id, command.device_id)
            return None
        finally:
            answered.set()
            if marking is not None:
                await marking

    async def _mark_delivered(self, command: Command, answered: asyncio.Event) -> None:
        """Record that a command was sent, unless it is answered at once."""
        try:
            async with asyncio.timeout(MARK_AFTER_S):
                await answered.wait()
        except TimeoutError:
            try:
                await self._store.mark_delivered([command])
            except Problem as problem:  # the list says `pending`, and later when it ended
                log.warning("A command's delivery could not be recorded.", command=command.id, why=problem.detail)

    async def _finish(self, command: Command, acknowledgement: Acknowledgement) -> CommandOutcome:
        try:
            await self._store.finish([(command, acknowledgement)])
        except Problem as problem:  # the device has acknowledged all the same; the list will call it expired
            log.warning("A command's outcome could not be recorded.", command=command.id, why=problem.detail)
        return CommandOutcome(command.id, acknowledgement)
