"""COMMAND → DEVICE: what a simulated device answers to commands.

`set_rate {rate}` sets its readings per second, `identify` says what it is. The answers are acknowledgements:
docs/protocol.md, "Commands to devices".
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

# Live devices share a process: a command must not let one of them take it all.
MAX_RATE = 1000


class _SetRate(msgspec.Struct, forbid_unknown_fields=True):
    rate: Annotated[float, Meta(gt=0, le=MAX_RATE)]


def failed(detail: str) -> dict[str, Any]:
    """Return the acknowledgement of a command that was not executed."""
    return {"status": "failed", "detail": detail}


def refuse(_: str, __: object) -> dict[str, Any]:
    """Answer a command to a device that takes none, as one that replays a file."""
    return failed("this device takes no commands")


class DeviceCommands:
    """The commands of one live device. `rate`: readings per second, as last set."""

    def __init__(self, device: str, sensor_type: str, rate: float) -> None:
        self.rate = rate
        self._device = device
        self._sensor_type = sensor_type

    def answer(self, name: str, payload: object) -> dict[str, Any]:
        """Execute a command and return its acknowledgement."""
        if name == "identify":
            return {
                "status": "done",
                "result": {"device": self._device, "sensorType": self._sensor_type, "rate": self.rate},
            }
        if name == "set_rate":
            try:
                self.rate = msgspec.convert(payload, _SetRate).rate
            except msgspec.ValidationError:
                return failed(f"set_rate takes an object with a rate above 0 and at most {MAX_RATE}")
            return {"status": "done", "result": {"rate": self.rate}}
        return failed(f"there is no command {name[:64]!r}; there are set_rate and identify")
