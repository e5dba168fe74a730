"""Refusals as HTTP problems: of an upgrade to a WebSocket, and of `POST /readings`."""

import math
from typing import Any

from runtime.http.problems import Problem


def problem(status: int, detail: str, data: dict[str, Any]) -> Problem:
    """Return the problem with `code` and the other fields of `data`; `retryAfterMs` is also sent as Retry-After."""
    extra = {name: value for name, value in data.items() if name != "code"}
    headers = {}
    if "retryAfterMs" in extra:
        headers["Retry-After"] = str(math.ceil(extra["retryAfterMs"] / 1000))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(status, detail, code=data["code"], headers=headers, extra=extra)
