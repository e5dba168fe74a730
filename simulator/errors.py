"""What can go wrong for a simulated device or its account, in one small tree."""


class SimulatorError(Exception):
    """The root: the message is a sentence for whoever runs the simulator."""


class UnavailableError(SimulatorError):
    """Not now: the same may work later. `retry_after_s` is what the server asked for, 0 when it did not say."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ApiError(SimulatorError):
    """An HTTP call was answered with an error that does not pass by itself."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class DeviceRefusedError(SimulatorError):
    """The gateway refuses the device for good; `code` is the protocol's (`unauthorized`, `revoked`, …)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"the gateway refused the device: {code} ({message})" if message else code)
        self.code = code


class ReplayError(SimulatorError):
    """A CSV cannot be replayed; the message names file, line and column."""
