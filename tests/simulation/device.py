"""Devices: the real library on its real file, and a program that sends what the seed has drawn.

A program that is killed goes on behind the reading that it was sending: that one may be stored or not.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from device import Device
from device.errors import NotNow
from device.transport import OnAck, OnEvent
from tests.simulation.gateway import CONNECTED, GatewayServer
from tests.simulation.history import History
from tests.simulation.loop import Process
from tests.simulation.mongodb import Server
from tests.simulation.network import End, Line, Network
from tests.simulation.places import stored_positions

CONNECT_TIMEOUT_S = 15.0
EVENT, ACK = "42", "43"


@dataclass
class Sent:
    """A reading of the plan. Its value is its number, so that it is found again whatever becomes of it.

    `twin` is the number of one with the same identity: at most one of the two is stored. `is_valid`: the gateway takes
    it. `is_refused`: MongoDB does not. `taken`: `send` has returned.
    """

    at: float
    number: int
    sensor_type: str
    position: tuple[int, int] | None = None
    twin: int | None = None
    is_valid: bool = True
    is_refused: bool = False
    begun: bool = False
    taken: bool = False

    def reading(self) -> dict[str, Any]:
        """Return what the program sends."""
        fields: dict[str, Any] = {"sensorType": self.sensor_type, "value": self.number}
        if self.position is not None:
            fields["ts"], fields["seq"] = self.position
        if not self.is_valid:
            fields["unit"] = "x" * 33
        return fields


class World:
    """What a device can reach, and where it notes what it was told and is not so."""

    def __init__(
        self,
        gateways: list[GatewayServer],
        confirmed: set[int],
        mongodb: Server,
        network: Network,
        history: History,
        errors: list[str],
    ) -> None:
        self.errors = errors
        self.confirmed = confirmed
        self.gateways = gateways
        self.mongodb = mongodb
        self.network = network
        self.history = history


class _Connection:
    """A connection to one of the gateways, in place of Socket.IO."""

    def __init__(
        self, world: World, process: Process, identity: tuple[str, str], on_ack: OnAck, on_event: OnEvent
    ) -> None:
        self.lost = asyncio.Event()
        self._world = world
        self._process = process
        self._identity = identity
        self._on_ack = on_ack
        self._on_event = on_event
        self._numbers = 0
        # What each event has, by its number.
        self._values: dict[int, list[int]] = {}
        self._line: Line | None = None
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, url: str, auth: dict[str, Any]) -> None:
        """Connect; raises NotNow."""
        del url
        network = self._world.network
        await asyncio.sleep(network.delay_s())
        up = [gateway for gateway in self._world.gateways if gateway.is_up and gateway.process is not None]
        if not up:
            raise NotNow("no gateway answers")
        gateway = network.random.choice(up)
        assert gateway.process is not None
        near, far = (End(process, self._receive, self._lost) for process in (self._process, gateway.process))
        self._line = line = Line(network, near, far)
        gateway.accept(line)
        line.to_far((*self._identity, auth))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connected
        except TimeoutError as error:
            raise NotNow("the gateway does not answer") from error

    def next_number(self) -> int:
        """Return the number of the next event."""
        self._numbers += 1
        return self._numbers

    async def emit(self, number: int, event: str, payload: str) -> None:
        """Send an event as the device library does."""
        if self._line is not None:
            self._line.to_far(f'{EVENT}{number}["{event}",{payload}]'.encode())
        readings = json.loads(payload)
        self._values[number] = [one["value"] for one in (readings if isinstance(readings, list) else [readings])]
        self._world.history.add(f"emits {event} {number}:", payload)
        await asyncio.sleep(0)

    async def request(self, event: str, payload: dict[str, Any], timeout_s: float) -> Any:
        """Do nothing: no token ends here."""
        raise NotNow(f"{event} {payload} {timeout_s}")

    async def close(self) -> None:
        """Close it."""
        self.lost.set()
        if self._line is not None:
            self._line.break_off(silent_at=self._line.near)
        await asyncio.sleep(0)

    def _receive(self, packet: bytes) -> None:
        if packet == CONNECTED:
            if not self._connected.done():
                self._connected.set_result(None)
            return
        text = packet.decode()
        kind, rest = text[:2], text[2:]
        number, content = rest[: rest.index("[")], json.loads(rest[rest.index("[") :])
        if kind == ACK:
            self._world.history.add(f"gets the answer to {number}:", content[0])
            self._check_confirmed(int(number), content[0])
            self._on_ack(int(number), content[0])
        else:
            self._process.spawn(self._take(content[0], content[1]))

    def _check_confirmed(self, number: int, answer: dict[str, Any]) -> None:
        if answer["status"] not in ("accepted", "partial"):
            return
        rejected = {one["index"] for one in answer.get("rejected", ())}
        accepted = (value for at, value in enumerate(self._values[number]) if at not in rejected)
        if early := [value for value in accepted if value not in self._world.confirmed]:
            self._world.errors.append(f"{self._process.name} is told that {early} are accepted, which is not so")

    async def _take(self, event: str, payload: Any) -> None:
        self._world.history.add(f"gets {event}:", payload)
        if event == "stored":
            known = stored_positions(self._world.mongodb, *self._identity)
            for item in payload["items"]:
                if early := [one for one in map(tuple, item["readings"]) if one not in known[item["sensorType"]]]:
                    self._world.errors.append(f"{self._process.name} is told that {early} are stored, which is not so")
        await self._on_event(event, payload)

    def _lost(self) -> None:
        self.lost.set()
        if not self._connected.done():
            self._connected.set_exception(NotNow("the connection was closed"))
            self._connected.exception()


class _Transport:
    """The way to the server, in place of the network."""

    def __init__(self, world: World, process: Process, identity: tuple[str, str]) -> None:
        self._world = world
        self._process = process
        self._identity = identity

    def connection(self, on_ack: OnAck, on_event: OnEvent) -> _Connection:
        """Return a connection that is not open yet."""
        return _Connection(self._world, self._process, self._identity, on_ack, on_event)

    async def renewed(self, device: str, token: str) -> str:
        """Refuse: no token ends here."""
        raise NotNow(f"{device} {token}")

    async def stored(self, question: dict[str, Any], token: str) -> Any:
        """Answer which readings are stored, as the reader does."""
        del token
        network = self._world.network
        await asyncio.sleep(network.delay_s())
        if network.random.random() < self._world.mongodb.faults.before:
            raise NotNow("the reader does not answer")
        known = stored_positions(self._world.mongodb, *self._identity)
        items = [
            {
                "sensorType": item["sensorType"],
                "readings": [list(one) for one in map(tuple, item["readings"]) if one in known[item["sensorType"]]],
            }
            for item in question["items"]
        ]
        self._world.history.add("asks:", question, "answer:", items)
        await asyncio.sleep(network.delay_s())
        return {"items": items}

    async def close(self) -> None:
        """Close nothing."""


class DeviceProgram:
    """One device, through all its restarts; its file outlives them. `identity`: its owner and its id."""

    def __init__(
        self, name: str, identity: tuple[str, str], path: Path, world: World, plan: list[Sent], random: Random
    ) -> None:
        self.name = name
        self.identity = identity
        self.plan = plan
        self.rejected: set[int] = set()
        self.receipts = random.random() < 0.5
        self._path = path
        self._world = world
        self._device: Device | None = None

    def start(self, process: Process) -> "asyncio.Task[None]":
        """Run in a process."""
        return process.spawn(self._run(process))

    async def _run(self, process: Process) -> None:
        device = Device(
            "http://gateway",
            token="token",
            buffer=self._path,
            receipts=self.receipts,
            transport=lambda _: _Transport(self._world, process, self.identity),
        )
        device.on_rejected(self._on_rejected)
        loop = asyncio.get_running_loop()
        async with device:
            self._device = device
            for sent in self.plan:
                if sent.begun:
                    continue
                if (wait_s := sent.at - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                sent.begun = True
                self._world.history.add("sends", sent.reading())
                await device.send(sent.reading())
                sent.taken = True
            await asyncio.Event().wait()

    def _on_rejected(self, reading: dict[str, Any], code: str, detail: str) -> None:
        self._world.history.add("is rejected:", reading, code, detail)
        self.rejected.add(reading["value"])

    def killed(self) -> None:
        """Free the file, as the operating system does: what was not committed is gone."""
        device, self._device = self._device, None
        if device is not None and (buffer := device._buffer) is not None:
            if buffer._log_file >= 0:
                os.close(buffer._log_file)
            buffer._database.close()

    @property
    def is_drained(self) -> bool:
        """Whether everything was sent and freed. With receipts, what MongoDB refuses stays in the file."""
        if (device := self._device) is None or not all(one.begun for one in self.plan):
            return False
        kept = sum(one.is_refused for one in self.plan) if self.receipts else 0
        is_sent = not device._outbox and not device._sender._in_flight
        return is_sent and device.pending <= kept
