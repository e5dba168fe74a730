"""One live device: which values it sends, and when."""

import asyncio
import itertools
import time

from msgspec import UNSET

from simulator.commands import DeviceCommands
from simulator.device import DeviceClient
from simulator.reading import DeviceReading
from simulator.waveform import Waveform

# A device that falls behind by more than this skips the readings it would have measured meanwhile.
MAX_BEHIND_S = 1.0


async def send_live(client: DeviceClient, sensor_type: str, *, rate: float, batch: int, delay_s: float = 0.0) -> None:
    """Send `rate` readings per second in events of `batch`, until cancelled; the first event leaves after `delay_s`.

    Answers commands; `set_rate` changes the rate.
    """
    commands = DeviceCommands(client.device, sensor_type, rate)
    client.on_command = commands.answer
    # Counted up over all readings, so that gaps show; a new run begins a new count.
    waveform, sequence = Waveform(sensor_type, client.device), itertools.count()
    await asyncio.sleep(delay_s)
    clock = time.monotonic
    # Readings are spaced evenly; an event leaves when its last reading has been measured.
    measured_at = clock()
    to_wall_s = time.time() - measured_at
    while True:
        readings, every_s = [], 1 / commands.rate
        for _ in range(batch):
            ts_ms = int((measured_at + to_wall_s) * 1000)
            value, seq = waveform.value(ts_ms), next(sequence)
            readings.append(DeviceReading(sensor_type, value, ts_ms, seq, unit=waveform.unit or UNSET))
            measured_at += every_s
        await client.send(readings)
        now = clock()
        next_at = measured_at + (batch - 1) * every_s
        if now - next_at > MAX_BEHIND_S:
            measured_at = now
            to_wall_s = time.time() - now
        await asyncio.sleep(max(0.0, next_at - now))
