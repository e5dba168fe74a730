"""HTTP calls to Tidegate: typed answers, errors as sentences, patience with a server that asks for it."""

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


class ProblemAnswer(msgspec.Struct):
    """What an RFC 9457 problem says, as far as it is shown."""

    title: str = ""
    detail: str = ""
    code: str = ""
    errors: list[dict[str, Any]] = []


@dataclass(frozen=True, slots=True)
class Api:
    """The HTTP interface at `url`. Answers 429 and 503 and lost connections are tried again, a few times."""

    http: aiohttp.ClientSession
    url: str
    attempts: int = ATTEMPTS

    async def call(
        self,
        method: str,
        path: str,
        answer_type: type[T],
        *,
        body: object = None,
        token: str = "",
        query: dict[str, str] | None = None,
        device: str = "",
    ) -> T:
        """Make one call; ApiError for an error that stays, UnavailableError for one that may pass."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if device:
            headers["X-Device-Id"] = device
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = msgspec.json.encode(body)
        for attempt in range(1, self.attempts + 1):
            try:
                raw = await self._once(method, path, data=data, headers=headers, params=query)
            except UnavailableError as error:
                if attempt == self.attempts:
                    raise
                wait_s = min(max(error.retry_after_s, 0.2 * 2**attempt), MAX_WAIT_S)
            else:
                return _decoded(f"{method} {path}", raw, answer_type)
            await asyncio.sleep(jitter(wait_s, wait_s * 1.25))
        raise AssertionError("attempts is at least 1")

    async def _once(self, method: str, path: str, **options: Any) -> bytes:
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        try:
            async with self.http.request(method, self.url.rstrip("/") + path, timeout=timeout, **options) as response:
                raw = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise UnavailableError(f"{self.url} does not answer ({why}); is Tidegate running there?") from error
        if response.status in (429, 502, 503, 504):
            after = response.headers.get("Retry-After", "")
            raise UnavailableError(
                f"{method} {path}: the server asks to come back later ({response.status}: {_told(_problem(raw))})",
                float(after) if after.isdecimal() else 0.0,
            )
        if response.status >= 300:
            problem = _problem(raw)
            raise ApiError(response.status, f"{method} {path}: {response.status} {_told(problem)}", problem.code)
        return raw


def _decoded(call: str, raw: bytes, answer_type: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=answer_type)
    except msgspec.MsgspecError as error:
        raise ApiError(200, f"{call}: the answer is not Tidegate's ({error}); is the URL right?") from error


def _problem(raw: bytes) -> ProblemAnswer:
    try:
        return msgspec.json.decode(raw, type=ProblemAnswer)
    except msgspec.MsgspecError:
        return ProblemAnswer(detail=raw[:200].decode(errors="replace"))


def _told(problem: ProblemAnswer) -> str:
    fields = "; ".join(f"{item.get('field', '')}: {item.get('message', '')}" for item in problem.errors[:5])
    return " ".join(part for part in (problem.detail or problem.title, f"({fields})" if fields else "") if part)
