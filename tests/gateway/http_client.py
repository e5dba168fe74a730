"""A client of `POST /readings`, and what its answers must be."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.gateway.harness import ISSUING, RunningGateway

JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024


class Answer:
    """An answer that was read to its end."""

    def __init__(self, status: int, headers: Any, raw: bytes) -> None:
        self.status = status
        self.headers = headers
        self.json: dict[str, Any] = json.loads(raw)

    @property
    def rejected(self) -> list[tuple[int, str]]:
        assert all(set(found) == {"index", "code", "detail"} and found["detail"] for found in self.json["rejected"])
        return [(found["index"], found["code"]) for found in self.json["rejected"]]


def bearer(token: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {ISSUING.device() if token is None else token}"}


async def post(
    running: RunningGateway,
    body: Any,
    headers: dict[str, str] | None = None,
    *,
    query: str = "",
    token: str | None = None,
) -> Answer:
    """Send bytes as they are, anything else as JSON; with a device's token unless there is another in the headers."""
    raw: Any = body if isinstance(body, bytes | AsyncIterator) else json.dumps(body).encode()
    if isinstance(raw, bytes) and len(raw) >= MIB:  # aiohttp warns of larger ones
        raw = io.BytesIO(raw)
    sent = bearer(token) | (JSON if headers is None else headers)
    async with (
        asyncio.timeout(10),
        running.http.post(f"{running.url}/readings{query}", data=raw, headers=sent) as found,
    ):
        return Answer(found.status, found.headers, await found.read())


def assert_taken(answer: Answer, accepted: int, rejected: list[tuple[int, str]] | None = None) -> None:
    assert answer.status == 202, answer.json
    assert set(answer.json) == {"accepted", "rejected"}
    assert (answer.json["accepted"], answer.rejected) == (accepted, rejected or [])
    assert answer.headers["Cache-Control"] == "no-store"


def assert_problem(answer: Answer, status: int, code: str | None = None) -> None:
    assert answer.status == answer.json["status"] == status, answer.json
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "detail"} <= set(answer.json)
    assert answer.json.get("code") == code
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    # A temporary refusal says when to retry, in seconds and in milliseconds.
    assert ("Retry-After" in answer.headers) == ("retryAfterMs" in answer.json) == (status in (429, 503))
    if "Retry-After" in answer.headers:
        after_ms = answer.json["retryAfterMs"]
        assert after_ms > 0
        assert after_ms <= int(answer.headers["Retry-After"]) * 1000 < after_ms + 1000
