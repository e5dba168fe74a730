"""CORS: which other origins' pages may read responses, as listed in CORS_ORIGINS.

Clients authenticate by tokens in headers and there are no cookies, so credentials are never allowed. Socket.IO has the
same list and does its own refusing.
"""

import re
from collections.abc import Sequence

from aiohttp import web

METHODS = "GET, HEAD, POST, PATCH, DELETE"
ALLOWED_HEADERS = "Authorization, Content-Type, X-Device-Id, Last-Event-ID"
EXPOSED_HEADERS = "Retry-After, WWW-Authenticate, Content-Disposition"
# How long a browser may cache a preflight response; Chromium's maximum.
MAX_AGE_S = 7200

# The form that browsers send in `Origin`: nothing after the port, no capital letters.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


def check_origins(origins: Sequence[str]) -> None:
    """Raise ValueError, naming variable and value, if one is not a valid `Origin` header; `*` is not."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"CORS_ORIGINS: {origin!r} is not an origin; write https://name or https://name:port")


def allow_origins(app: web.Application, origins: Sequence[str]) -> None:
    """Let pages of these origins read every response of `app`, errors included, and answer their preflights.

    `app` needs `problem_middleware`, which answers OPTIONS.
    """
    allowed = frozenset(origins)

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Vary"] = ", ".join(filter(None, (response.headers.get("Vary"), "Origin")))
        origin = request.headers.get("Origin", "")
        if origin not in allowed:
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            response.headers["Access-Control-Allow-Methods"] = METHODS
            response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
            response.headers["Access-Control-Max-Age"] = str(MAX_AGE_S)
        else:
            response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS

    if allowed:
        app.on_response_prepare.append(add_headers)
