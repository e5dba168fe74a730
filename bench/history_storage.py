"""How long a reading takes until it is stored, sampled: a device sends some a second, and MongoDB is asked for them.

A sample is found in `readings`, or in the sealed collection into which it has moved meanwhile.
"""

import sys
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from bench.environment import Environment
from bench.history_systems import VersionSystem
from bench.load import percentile
from bench.processes import BenchError, LineProcess
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS, document_ts_ms, split_documents
from readings.filters import in_time_range
from readings.keys import series_key
from storage.places.moving import MOVED
from storage.places.names import BLOCKS, sealed_name
from storage.places.raw_find import find_first
from storage.places.state import state_of

DEVICE, SENSOR_TYPE = "device-19", "sampled"
OWNER = "owner-0"
SAMPLES_A_SECOND = 50
# A look takes 0.5 to 0.6 ms of client and mongod: 3 % of two cores. Every 5 ms, at the last 2 s, and at the list of
# sealed collections too, it was 12 %, and what drained beside it was as much slower.
POLL_S = 0.01
# Samples are stored in the order of their times, mostly.
LOOK_BACK_MS = 1000
# Of one look; those that come behind these are found by the next one.
MOST_SAMPLES = 1000
# Behind a backlog that has no lane of its own, a sample waits for all of it.
LAST_WAIT_S = 60.0


class SampledStorage:
    """The device, connected while the context is open; `sealing`: its readings may move to sealed collections."""

    def __init__(self, environment: Environment, database: Any, system: VersionSystem, *, sealing: bool) -> None:
        self._environment = environment
        self._database = database.with_options(codec_options=AS_MILLISECONDS, read_concern=ReadConcern("majority"))
        self._port = system.port
        self._sealing = sealing
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        environment = self._environment
        command = [sys.executable, "-m", "bench.paced", f"http://127.0.0.1:{self._port}"]
        self._device = self._stack.enter_context(LineProcess(command, log=environment.folder / "sampled.log"))
        token = environment.device_auth(int(DEVICE.partition("-")[2]))["token"]
        setup = {"token": token, "device": DEVICE, "sensorType": SENSOR_TYPE, "rate": SAMPLES_A_SECOND}
        self._device.send(setup)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def p99_ms(self, seconds: float) -> float:
        """Send for some seconds, and return the 99th percentile of the milliseconds until samples were found."""
        return percentile(self.each_ms(seconds), 0.99)

    def each_ms(self, seconds: float) -> list[float]:
        """Send for some seconds, and return the milliseconds until each sample was found."""
        from_ms = int(self._device.request({"run": seconds})["fromMs"])
        found: dict[int, float] = {}
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._look(found, max(from_ms, max(found, default=from_ms) - LOOK_BACK_MS))
            time.sleep(POLL_S)
        sent = {int(ts) for ts, _ in self._device.receive()["acknowledged"]}
        deadline = time.monotonic() + LAST_WAIT_S
        while missing := sent - found.keys():
            if time.monotonic() > deadline:
                raise BenchError(f"{len(missing)} of {len(sent)} samples were not found")
            self._look(found, min(missing))
        return list(found.values())

    def _look(self, found: dict[int, float], since_ms: int) -> None:
        """Add what is stored of the samples since a time. A rename meanwhile ends it: the next look finds the rest."""
        try:
            self._look_everywhere(found, since_ms)
        except OperationFailure as error:
            if error.code not in MOVED:
                raise

    def _look_everywhere(self, found: dict[int, float], since_ms: int) -> None:
        """Ask all places, in the order in which readings move."""
        names = [READINGS]
        while names:
            query = in_time_range(series_key(OWNER, DEVICE, SENSOR_TYPE), since_ms)
            name = names.pop(0)
            documents = split_documents(find_first(self._database[name], query, limit=MOST_SAMPLES).documents)
            for ts in map(document_ts_ms, documents):
                found.setdefault(ts, time.time() * 1000 - ts)
            if self._sealing and name == READINGS:
                state = state_of(self._database[BLOCKS].find_one({"_id": "state"}))
                names += [sealed_name(number) for number in state.waiting[-2:]]
