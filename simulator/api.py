"""HTTP calls to Tidegate: typed responses, readable errors, retries with the delay that the server requests."""

import asyncio
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import msgspec

from simulator.backoff import jitter
from simulator.errors import ApiError, UnavailableError

T = TypeVar("T")

CALL_TIMEOUT_S = 15.0
ATTEMPTS = 5
MAX_WAIT_S = 30.0


class ProblemBody(msgspec.Struct):
    """The fields of an RFC 9457 problem that are shown."""

    title: str = ""
    detail: str = ""
    code: str = ""
    errors: list[dict[str, Any]] = []


@dataclass(frozen=True, slots=True)
class Api:
    """The HTTP interface at `url`. 429, 502, 503, 504 and lost connections are tried `attempts` times."""

    http: aiohttp.ClientSession
    url: str
    attempts: int = ATTEMPTS

    async def call(
        self,
        method: str,
        path: str,
        response_type: type[T],
        *,
        body: object = None,
        token: str = "",
        query: dict[str, str] | None = None,
        device: str = "",
    ) -> T:
        """Make one call; raises ApiError for a permanent error, UnavailableError for a temporary one."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if device:
            headers["X-Device-Id"] = device
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = msgspec.json.encode(body)
        for attempt in range(1, self.attempts + 1):
            try:
                body_bytes = await self._send_request(method, path, data=data, headers=headers, params=query)
            except UnavailableError as error:
                if attempt == self.attempts:
                    raise
                wait_s = min(max(error.retry_after_s, 0.2 * 2**attempt), MAX_WAIT_S)
            else:
                return _decoded(f"{method} {path}", body_bytes, response_type)
            await asyncio.sleep(jitter(wait_s, wait_s * 1.25))
        raise AssertionError("attempts is at least 1")

    async def _send_request(self, method: str, path: str, **options: Any) -> bytes:
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        try:
            async with self.http.request(method, self.url.rstrip("/") + path, timeout=timeout, **options) as response:
                body_bytes = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"{self.url} does not answer ({reason}); is Tidegate running there?") from error
        if response.status in (429, 502, 503, 504):
            after = response.headers.get("Retry-After", "")
            raise UnavailableError(
                f"{method} {path}: temporarily unavailable ({response.status}: {_describe(_problem(body_bytes))})",
                float(after) if after.isdecimal() else 0.0,
            )
        if response.status >= 300:
            problem = _problem(body_bytes)
            raise ApiError(response.status, f"{method} {path}: {response.status} {_describe(problem)}", problem.code)
        return body_bytes


def _decoded(call: str, body_bytes: bytes, response_type: type[T]) -> T:
    try:
        return msgspec.json.decode(body_bytes, type=response_type)
    except msgspec.MsgspecError as error:
        raise ApiError(200, f"{call}: the response is not Tidegate's ({error}); is the URL right?") from error


def _problem(body_bytes: bytes) -> ProblemBody:
    try:
        return msgspec.json.decode(body_bytes, type=ProblemBody)
    except msgspec.MsgspecError:
        return ProblemBody(detail=body_bytes[:200].decode(errors="replace"))


def _describe(problem: ProblemBody) -> str:
    fields = "; ".join(f"{item.get('field', '')}: {item.get('message', '')}" for item in problem.errors[:5])
    return " ".join(part for part in (problem.detail or problem.title, f"({fields})" if fields else "") if part)
