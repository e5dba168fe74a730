"""The errors of simulated devices and their account."""


class SimulatorError(Exception):
    """The base class; the message is shown to the person who runs the simulator."""


class UnavailableError(SimulatorError):
    """A temporary failure: retry later. `retry_after_s` is the delay that the server requested, 0 if it named none."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ApiError(SimulatorError):
    """An HTTP call failed with a permanent error."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class DeviceRefusedError(SimulatorError):
    """The gateway refused the device permanently; `code` is the protocol's (`unauthorized`, `revoked`, …)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"the gateway refused the device: {code} ({message})" if message else code)
        self.code = code


class ReplayError(SimulatorError):
    """A file, or a cell of it, cannot be read as readings; the message names file, line and column.

    `line` is 0 if the whole file is meant.
    """

    def __init__(self, message: str, *, line: int = 0, column: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.reason = reason or message
