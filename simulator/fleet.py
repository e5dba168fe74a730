"""A fleet of simulated devices against a running system, live or replaying a file; independent of the command line."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import aiohttp

from readings.reading import MAX_READINGS
from runtime.logs import logger
from runtime.waiting import StoppedError, unless_stopped
from simulator.account import Account, Device, NewDevice
from simulator.api import Api
from simulator.device import DeviceClient, device_session
from simulator.errors import SimulatorError
from simulator.http_sender import HttpSender
from simulator.live import send_live
from simulator.replay.file import Replay
from simulator.replay.readings import CheckedReplay, check_replay, replay_readings, replay_rows
from simulator.run_stats import RunStats
from simulator.waveform import SENSOR_TYPES

log = logger("simulator.fleet")

T = TypeVar("T")

REPLAY_BATCH = 100
# Live devices start together when all are connected, or after this time without those that are not.
ASSEMBLE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """What a fleet does. `rate` is in readings per second and device; `batch` is in readings per event."""

    url: str
    email: str
    password: str = field(repr=False)
    devices: int = 10
    rate: float = 1.0
    batch: int | None = None  # 1 live, 100 in a replay
    seconds: float | None = None
    replay: Replay | None = None
    sign_up_name: str | None = "Simulator"  # None: the user exists
    window: int = 4
    max_unacked: int = 5000
    flush_seconds: float = 30.0  # timeout of the last acknowledgements
    stop_flush_seconds: float = 8.0  # that timeout after a stop
    sensor_types: tuple[str, ...] = SENSOR_TYPES

    def __post_init__(self) -> None:
        if not (1 <= self.devices <= 100_000 and 0 < self.rate <= 1_000_000):
            raise ValueError("devices must be 1 to 100,000, rate above 0 and at most 1,000,000")
        if self.batch is not None and not 1 <= self.batch <= MAX_READINGS:
            raise ValueError(f"batch must be 1 to {MAX_READINGS}")
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError("seconds must be above 0")


async def run_fleet(plan: FleetPlan, *, stats: RunStats, stop: asyncio.Event) -> None:
    """Run the fleet until its seconds have passed, its file is sent or `stop` is set; then wait for acknowledgements.

    Failed devices are recorded in `stats` while the others continue. Raises SimulatorError if the fleet cannot start.
    """
    checked = None if plan.replay is None else await check_replay(plan.replay)
    async with device_session() as http:
        account = Account(Api(http, plan.url), plan.email, plan.password, name=plan.sign_up_name)
        if checked is not None and checked.names_devices:
            stats.expected, stats.devices = checked.readings, checked.devices
            if await _until(stop, _opened(account, stats)):
                await _replay_over_http(plan, checked, account, stats, stop)
            return
        if checked is not None:
            stats.expected = checked.readings * plan.devices
        devices = await _until(stop, _ready(account, plan, stats))
        if devices is not None:
            stats.devices = len(devices)
            await _Fleet(plan, http, account, stats, stop, checked).run(devices)


async def _replay_over_http(
    plan: FleetPlan, checked: CheckedReplay, account: Account, stats: RunStats, stop: asyncio.Event
) -> None:
    """Send rows that name their devices until they end, the plan's seconds have passed or `stop` is set."""
    halted, loop = asyncio.Event(), asyncio.get_running_loop()
    timer = loop.call_later(plan.seconds, halted.set) if plan.seconds is not None else None
    stopping = asyncio.ensure_future(stop.wait())
    stopping.add_done_callback(lambda _: halted.set())
    rows = replay_rows(checked.replay, "", checked.kinds)
    try:
        with contextlib.closing(rows):
            await HttpSender(account, stats, rows_at_once=plan.batch or MAX_READINGS).send(
                rows, halted, plan.stop_flush_seconds
            )
    except SimulatorError as error:
        stats.device_failed("replay", str(error))
    finally:
        if timer is not None:
            timer.cancel()
        stopping.cancel()
        await asyncio.wait((stopping,))


async def _opened(account: Account, stats: RunStats) -> bool:
    await account.open()
    stats.owner = (await account.claims()).owner
    return True


async def _ready(account: Account, plan: FleetPlan, stats: RunStats) -> list[Device]:
    await _opened(account, stats)
    kinds = plan.sensor_types
    wanted = [
        NewDevice(sensor_type=kinds[index % len(kinds)], location="simulator", name=f"sim-{index + 1:04}")
        for index in range(plan.devices)
    ]
    return await account.find_or_register_all(wanted)


async def _until(stop: asyncio.Event, work: Awaitable[T]) -> T | None:
    """Return what `work` gives, or None when the stop comes first."""
    try:
        return await unless_stopped(work, stop)
    except StoppedError:
        return None


class _Fleet:
    def __init__(
        self,
        plan: FleetPlan,
        http: aiohttp.ClientSession,
        account: Account,
        stats: RunStats,
        stop: asyncio.Event,
        checked: CheckedReplay | None,
    ) -> None:
        self._plan = plan
        self._checked = checked
        self._http = http
        self._account = account
        self._stats = stats
        self._stop = stop
        self._sending: set[asyncio.Future[None]] = set()
        self._started = asyncio.Event()
        self._halted = False
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self, devices: list[Device]) -> None:
        async with self._halt_on_stop(), asyncio.TaskGroup() as tasks:
            for index, device in enumerate(devices):
                tasks.create_task(self._run_device(index, device), name=device.name)

    @contextlib.asynccontextmanager
    async def _halt_on_stop(self) -> AsyncIterator[None]:
        """Stop all devices from sending when `stop` is set or the plan's seconds have passed."""

        async def halt_at_stop() -> None:
            await self._stop.wait()
            self._halt()

        task = asyncio.ensure_future(halt_at_stop())
        if self._plan.replay is None:
            self._timers.append(asyncio.get_running_loop().call_later(ASSEMBLE_S, self._start))
        else:
            self._start()
        try:
            yield
        finally:
            for timer in self._timers:
                timer.cancel()
            task.cancel()
            await asyncio.wait((task,))

    def _start(self) -> None:
        if not self._started.is_set():
            self._started.set()
            if self._plan.seconds is not None:
                self._timers.append(asyncio.get_running_loop().call_later(self._plan.seconds, self._halt))

    def _start_if_complete(self) -> None:
        if self._stats.connected + self._stats.failed >= self._stats.devices:
            self._start()

    def _halt(self) -> None:
        self._halted = True
        for sending in self._sending:
            sending.cancel()

    async def _run_device(self, index: int, device: Device) -> None:
        try:
            async with self._client(device) as client:
                await self._send(self._workload(client, index, device))
                await self._flush(client)
        except SimulatorError as error:
            self._fail(device, str(error))
        except Exception as error:  # the fleet goes on without it; its readings stay unacknowledged
            log.exception("A device failed unexpectedly.", device=device.name)
            self._fail(device, f"{type(error).__name__}: {error}")

    def _client(self, device: Device) -> DeviceClient:
        async def token() -> str:
            return await self._account.device_token(device.id)

        count = self._stats.device_connection()

        def connection(connected: bool) -> None:
            count(connected)
            self._start_if_complete()

        return DeviceClient(
            self._plan.url,
            token,
            device.id,
            http=self._http,
            window=self._plan.window,
            max_unacked=self._plan.max_unacked,
            on_settled=self._stats.on_settled,
            on_sent=self._stats.on_sent,
            on_retried=self._stats.on_retried,
            on_connection=connection,
        )

    async def _send(self, workload: Callable[[], Awaitable[None]]) -> None:
        """Run the device's workload until it ends or the fleet is halted."""
        if self._halted:
            return
        sending = asyncio.ensure_future(workload())
        self._sending.add(sending)
        try:
            await asyncio.wait((sending,))
        finally:
            self._sending.discard(sending)
            if not sending.done():  # the whole fleet is cancelled
                sending.cancel()
                await asyncio.wait((sending,))
        if not sending.cancelled():
            sending.result()

    def _workload(self, client: DeviceClient, index: int, device: Device) -> Callable[[], Awaitable[None]]:
        checked = self._checked
        if checked is not None:
            return lambda: self._replay(client, device, checked)
        return lambda: self._live(client, index, device)

    async def _live(self, client: DeviceClient, index: int, device: Device) -> None:
        plan = self._plan
        batch = plan.batch or 1
        await client.first_connected()
        await self._started.wait()
        delay_s = index / plan.devices * batch / plan.rate
        await send_live(client, device.sensor_type, rate=plan.rate, batch=batch, delay_s=delay_s)

    async def _replay(self, client: DeviceClient, device: Device, checked: CheckedReplay) -> None:
        with contextlib.closing(replay_readings(checked.replay, device.sensor_type, checked.kinds)) as rows:
            while readings := list(islice(rows, self._plan.batch or REPLAY_BATCH)):
                await client.send(readings)
                await asyncio.sleep(0)  # let the other devices run between batches

    async def _flush(self, client: DeviceClient) -> None:
        seconds = self._plan.stop_flush_seconds if self._stop.is_set() else self._plan.flush_seconds
        try:
            async with asyncio.timeout(seconds):
                await client.flush()
        except TimeoutError as error:
            raise SimulatorError(f"{client.unacked} readings were not acknowledged within {seconds:g} s") from error

    def _fail(self, device: Device, reason: str) -> None:
        log.error("A device failed.", device=device.name, error=reason)
        self._stats.device_failed(device.name, reason)
        self._start_if_complete()
