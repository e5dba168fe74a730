"""One form of HTTP error for every service: RFC 9457 `application/problem+json`."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from runtime.logs import logger

log = logger("runtime.http.problems")

# What clients send is repeated to them only so far.
_SHOWN_CHARS = 200

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a body."""

    field: str
    code: str
    message: str


class Problem(Exception):
    """An answer that is not a success. Raise it anywhere below `problem_middleware`.

    `code` is for programs, `detail` for people; `extra` holds further members (`limit`, `retryAfterMs`).
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        code: str = "",
        errors: tuple[FieldError, ...] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {detail}")
        self.status = status
        self.detail = detail
        self.code = code
        self.errors = errors
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def response(self) -> web.Response:
        """Return the problem as it goes over the wire."""
        title = HTTPStatus(self.status).phrase
        body: dict[str, Any] = {"type": "about:blank", "title": title, "status": self.status}
        body["detail"] = self.detail or title
        if self.code:
            body["code"] = self.code
        if self.errors:
            body["errors"] = self.errors
        body.update(self.extra)
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(body),
            content_type="application/problem+json",
            headers=self.headers,
        )


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error, the server's own included, into a problem; faults are logged and never told to the client."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPMethodNotAllowed as error:
        headers = {"Allow": error.headers["Allow"]}
        if request.method == "OPTIONS":  # what may be done here is the answer; other origins are not told more
            return web.Response(status=204, headers=headers)
        return Problem(405, f"{request.method[:_SHOWN_CHARS]} is not allowed here.", headers=headers).response()
    except web.HTTPError as error:
        kept = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
        return Problem(error.status, _about(error.status, request), headers=kept).response()
    except web.HTTPException:
        raise
    except Exception:  # the top of a request: the client gets a 500, the operator the traceback
        log.exception("A request failed.", method=request.method, path=request.path)
        return Problem(500, "The server could not answer; the operator's log has the reason.").response()


def _about(status: int, request: web.Request) -> str:
    if status == 404:
        shown = request.path[:_SHOWN_CHARS].encode("ascii", "backslashreplace").decode()
        return f"There is nothing at {shown}."
    return ""
