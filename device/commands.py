"""Commands of the device's owner: each is run once, and answered as often as it comes."""

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from device.handlers import outcome

# Ids whose answers are kept for a repeat: the server sends a command again if its answer was lost.
KEPT = 1000
# Servers take no larger result. An acknowledgement above 4 MiB would end the connection, at each delivery again.
MAX_RESULT_BYTES = 16 * 1024
MAX_DETAIL_CHARS = 1000

_log = logging.getLogger("device")
# As an acknowledgement is written: its result is bounded in UTF-8, not in ASCII.
encode_result = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Command:
    """What the owner asks of the device; `payload` is JSON as Python has it, or None."""

    id: str
    name: str
    payload: Any = None


class Commands:
    """Runs the program's handler; what it returns is the result, what it raises the reason of a failure."""

    def __init__(self) -> None:
        self.handler: Callable[[Command], Any] | None = None
        self._answers: OrderedDict[str, asyncio.Task[dict[str, Any]]] = OrderedDict()

    async def answer(self, event: Any) -> dict[str, Any]:
        """Return the acknowledgement of a `command` event."""
        fields = event if isinstance(event, dict) else {}
        number, name = fields.get("id"), fields.get("name")
        if not isinstance(number, str) or not isinstance(name, str):
            return _failed("a command has an id and a name")
        task = self._answers.get(number)
        if task is None or task.cancelled():  # cut short by an earlier `close`
            command = Command(number, name, fields.get("payload"))
            task = self._answers[number] = asyncio.create_task(self._run(command), name=f"command {name}")
            while len(self._answers) > KEPT:
                self._answers.popitem(last=False)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel what runs."""
        tasks = [task for task in self._answers.values() if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, command: Command) -> dict[str, Any]:
        if self.handler is None:
            return _failed("this device takes no commands")
        try:
            result = await outcome(self.handler, command)
            size = len(encode_result(result).encode())
        except Exception as error:  # noqa: BLE001 - whatever the program's handler raises is its answer
            _log.warning("The handler of a command failed", exc_info=error)
            return _failed(f"{type(error).__name__}: {error}")
        if size > MAX_RESULT_BYTES:
            _log.warning("The result of the command %r has %d bytes of JSON", command.name, size)
            return _failed(f"the result has {size} bytes of JSON, and may have {MAX_RESULT_BYTES}")
        return {"status": "done", "result": result}


def _failed(detail: str) -> dict[str, Any]:
    return {"status": "failed", "detail": detail[:MAX_DETAIL_CHARS].encode(errors="replace").decode()}
