"""What happened in a run, in the order in which it happened."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from tests.simulation.loop import current


class History:
    """The events of one run. Nothing is formatted before someone reads it."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._events: list[tuple[float, str, str, tuple[object, ...]]] = []

    def add(self, what: str, *details: object, who: str = "") -> None:
        """Add an event of the running process, or of `who`."""
        if not who:
            process = current()
            who = "" if process is None else process.name
        self._events.append((self._time(), who, what, details))

    def lines(self) -> Iterator[str]:
        """Yield one line an event."""
        for at, who, what, details in self._events:
            yield f"{at:10.4f}  {who:<12} {what} {' '.join(map(str, details))}".rstrip()


class _Logs(logging.Handler):
    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        """Add what the device library logs."""
        self._history.add("log:", record.getMessage())


def keep_logs_in(history: History) -> None:
    """Let every log line of the product be an event of this history."""

    def keep(_: Any, __: str, event: Any) -> Any:
        fields = {name: value for name, value in event.items() if name not in ("event", "exc_info")}
        error = event.get("exc_info")
        history.add("log:", event.get("event"), fields or "", repr(error) if isinstance(error, BaseException) else "")
        raise structlog.DropEvent

    structlog.configure(
        processors=[keep],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    device = logging.getLogger("device")
    device.handlers = [_Logs(history)]
    device.setLevel(logging.INFO)
    device.propagate = False
