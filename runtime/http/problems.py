"""The error responses of every service: RFC 9457 `application/problem+json`."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from runtime.logs import logger

log = logger("runtime.http.problems")

# Text from clients is echoed up to this length only.
_SHOWN_CHARS = 200

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FieldError(msgspec.Struct, frozen=True):
    """The mistake in one field of a request."""

    field: str
    code: str
    message: str


class Problem(Exception):
    """An error response. Raise it anywhere below `problem_middleware`.

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
        """Return the problem as an HTTP response."""
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


def bad_body(detail: str, *, status: int = 400, code: str = "") -> Problem:
    """Return the problem of a body that is wrong as a whole: its one error names no field."""
    return Problem(status, detail, code=code, errors=(FieldError("", code or "invalid", detail),))


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error, including the server's own, into a problem; unexpected ones are logged, not shown."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPMethodNotAllowed as error:
        headers = {"Allow": error.headers["Allow"]}
        if request.method == "OPTIONS":  # the response is the list of methods; other origins learn nothing else
            return web.Response(status=204, headers=headers)
        return Problem(405, f"{request.method[:_SHOWN_CHARS]} is not allowed here.", headers=headers).response()
    except web.HTTPError as error:
        kept = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
        return Problem(error.status, _about(error.status, request), headers=kept).response()
    except web.HTTPException:
        raise
    except Exception:  # the top of a request: the client gets 500, the log the traceback
        log.exception("A request failed.", method=request.method, path=request.path)
        return Problem(500, "The server failed; the reason is in its log.").response()


def _about(status: int, request: web.Request) -> str:
    if status == 404:
        shown = request.path[:_SHOWN_CHARS].encode("ascii", "backslashreplace").decode()
        return f"There is nothing at {shown}."
    return ""
