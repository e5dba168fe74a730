"""AUTH → GATEWAY → DEVICE and back: commands from `tidegate.commands`, their outcomes to `tidegate.replies`.

A command is for one session. A gateway that has it emits `command` with an acknowledgement id and waits for the
client's acknowledgement, at most for the command's own time; every other gateway ignores it. Nothing here waits in a
task of its own, and nothing touches readings: a device without commands costs nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import msgspec

from broker.commands import (
    MAX_DETAIL_CHARS,
    MAX_RESULT_BYTES,
    Outcome,
    Reply,
    SendCommand,
    decode_order,
    encode_reply,
)
from broker.interface import Broadcaster, Broker, Subscriber
from broker.topology import COMMANDS_EXCHANGE, REPLIES_EXCHANGE
from gateway.from_devices import FromDevices
from gateway.metrics import GatewayMetrics
from gateway.presence import PresenceBroadcaster
from gateway.socket.device_socket import DeviceSocket
from runtime.background import background
from runtime.http.json_text import repeated_name
from runtime.logs import logger

log = logger("gateway.commands")

# Commands queued by the subscriber, at most 17 KiB each.
MAX_QUEUED = 1000
# How long the answer to a CONNECT may take after its session was broadcast.
CONNECT_ANSWER_S = 1.0
_POLL_S = 0.01
# What an acknowledgement may have in addition to its result: status and detail.
_MAX_ACK_BYTES = MAX_RESULT_BYTES + 6 * MAX_DETAIL_CHARS + 256
NOT_A_STATUS = 'The device did not acknowledge with {status: "done", result?} or {status: "failed", detail?}.'
TOO_LARGE = f"The device's result has more than {MAX_RESULT_BYTES} bytes of JSON."


class _Ack(msgspec.Struct):
    status: Literal["done", "failed"]
    result: msgspec.Raw = msgspec.Raw()
    detail: str | None = None


_arguments = msgspec.json.Decoder(list[msgspec.Raw])
_ack = msgspec.json.Decoder(_Ack)
_any = msgspec.json.Decoder()


class CommandReceiver:
    """Hands the commands for the sessions of this gateway to their sockets."""

    def __init__(
        self, replies: Broadcaster, devices: FromDevices, presence: PresenceBroadcaster, metrics: GatewayMetrics
    ) -> None:
        self._replies = replies
        self._devices = devices
        self._presence = presence
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def receiving(
        cls, broker: Broker, devices: FromDevices, presence: PresenceBroadcaster, metrics: GatewayMetrics
    ) -> AsyncIterator[None]:
        """Receive commands until the context is left."""
        async with (
            broker.broadcaster(REPLIES_EXCHANGE) as replies,
            broker.subscriber(COMMANDS_EXCHANGE, bound=MAX_QUEUED) as orders,
        ):
            receiver = cls(replies, devices, presence, metrics)
            async with background(receiver.run(orders), name="commands"):
                yield

    async def run(self, orders: Subscriber) -> None:
        """Handle every message; undecodable ones, as from a newer version, are ignored."""
        async for payload in orders:
            try:
                order = decode_order(payload)
            except msgspec.DecodeError as error:
                log.debug("A command could not be decoded.", error=str(error))
                continue
            try:
                if isinstance(order, SendCommand):
                    self._handle(order)
                else:
                    self._presence.announce()
            except Exception:  # an error with one command must not keep others from their devices
                log.exception("A command could not be handled.")

    def _handle(self, order: SendCommand) -> None:
        if order.session.gateway != self._presence.gateway:
            return
        found = self._devices.session_at(order.session.connected_us)
        if found is None or (found.owner, found.device) != (order.owner, order.device):
            self._reply(order, "absent")
        elif found.is_open():
            self._emit(found.socket, order)
        else:
            task = asyncio.ensure_future(self._emit_when_open(found.is_open, found.socket, order))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _emit_when_open(self, is_open: Callable[[], bool], socket: DeviceSocket, order: SendCommand) -> None:
        """Wait until the CONNECT is answered: its session is broadcast before."""
        for _ in range(round(CONNECT_ANSWER_S / _POLL_S)):
            await asyncio.sleep(_POLL_S)
            if is_open():
                self._emit(socket, order)
                return
        self._reply(order, "absent")

    def _emit(self, socket: DeviceSocket, order: SendCommand) -> None:
        if socket.closing:
            self._reply(order, "absent")
            return
        timer: asyncio.TimerHandle | None = None

        def on_ack(arguments: bytes | None) -> None:
            if timer is not None:
                timer.cancel()
            self._reply(order, *(("lost", b"", "") if arguments is None else outcome_of(arguments)))

        event = msgspec.json.encode(["command", {"id": order.id, "name": order.name, "payload": order.payload}])
        number = socket.emit(event, on_ack)
        timer = asyncio.get_running_loop().call_later(
            order.timeout_ms / 1000, partial(self._on_timeout, socket, number, order)
        )
        self._reply(order, "sent")

    def _on_timeout(self, socket: DeviceSocket, number: int, order: SendCommand) -> None:
        socket.give_up_ack(number)
        self._reply(order, "unanswered")

    def _reply(self, order: SendCommand, outcome: Outcome, result: bytes = b"", detail: str = "") -> None:
        self._metrics.commands.labels(outcome).inc()
        self._replies.broadcast(encode_reply(Reply(order.reply_to, order.id, outcome, msgspec.Raw(result), detail)))


def outcome_of(arguments: bytes) -> tuple[Outcome, bytes, str]:
    """Return outcome, result and detail of an acknowledgement; only one with `status: "done"` is done.

    An empty one is no answer: python-socketio sends it for an event that nothing handles, and for a handler that
    returns nothing.
    """
    if len(arguments) > _MAX_ACK_BYTES:
        return "failed", b"", TOO_LARGE
    try:
        items = [bytes(item) for item in _arguments.decode(arguments)]
        if items in ([], [b"null"]):
            return "unanswered", b"", ""
        (item,) = items
        ack = _decoded(item)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return "failed", b"", NOT_A_STATUS
    if ack.status == "failed":
        return "failed", b"", _one_line(ack.detail or "")
    result = bytes(ack.result)
    if len(result) > MAX_RESULT_BYTES:
        return "failed", b"", TOO_LARGE
    return "done", result, ""


def _decoded(item: bytes) -> _Ack:
    ack = _ack.decode(item)
    if result := bytes(ack.result):
        _any.decode(result)  # numbers and surrogates, which are not checked in what is skipped
    if repeated_name(item) is not None:
        raise ValueError("a name twice: two parsers may read it differently")
    return ack


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:MAX_DETAIL_CHARS])
