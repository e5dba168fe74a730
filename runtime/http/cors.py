"""Browsers of other origins: whether their pages may read what is answered here. Only those that CORS_ORIGINS names.

Only tokens in headers open anything and there are no cookies, so credentials are never allowed. Socket.IO has the same
list and refuses by itself.
"""

import re
from collections.abc import Sequence

from aiohttp import web

METHODS = "GET, HEAD, POST, PATCH, DELETE"
ASKED_HEADERS = "Authorization, Content-Type, X-Device-Id, Last-Event-ID"
SHOWN_HEADERS = "Retry-After, WWW-Authenticate, Content-Disposition"
# How long a browser may remember the answer to its preflight; Chromium's bound.
MAX_AGE_S = 7200

# As a browser writes it in `Origin`: nothing behind the port, no capitals.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


def check_origins(origins: Sequence[str]) -> None:
    """Raise ValueError, naming variable and value, when one can be no browser's `Origin`; `*` is none."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"CORS_ORIGINS: {origin!r} is no origin; it is written https://name or https://name:port")


def allow_origins(app: web.Application, origins: Sequence[str]) -> None:
    """Let pages of these origins read every answer of `app`, errors included, and answer their preflights.

    `app` needs `problem_middleware`, which gives OPTIONS its answer.
    """
    allowed = frozenset(origins)

    async def tell(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Vary"] = ", ".join(filter(None, (response.headers.get("Vary"), "Origin")))
        origin = request.headers.get("Origin", "")
        if origin not in allowed:
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            response.headers["Access-Control-Allow-Methods"] = METHODS
            response.headers["Access-Control-Allow-Headers"] = ASKED_HEADERS
            response.headers["Access-Control-Max-Age"] = str(MAX_AGE_S)
        else:
            response.headers["Access-Control-Expose-Headers"] = SHOWN_HEADERS

    if allowed:
        app.on_response_prepare.append(tell)
