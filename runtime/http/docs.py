"""`/openapi.json` and `/docs`: the description of a service's calls, for programs and for people.

Separate from the calls themselves, because on one origin several services have one description.
"""

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web

from runtime.http.docs_page import STYLE, page
from runtime.http.openapi import openapi_document
from runtime.http.operation import Operation

TITLE = "Tidegate"
# Of the interface: raised when something that worked would not work any more.
API_VERSION = "1"
ABOUT = (
    "Accounts, devices, tokens and readings. JSON is camelCase; times go out as RFC 3339 in UTC with milliseconds. "
    "Every refusal is an RFC 9457 problem: a program reads `code`, and `errors` for the wrong fields of a body."
)

# The page has no script and loads nothing; only its own style sheet, known by its hash, applies.
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def document(calls: Iterable[Operation]) -> dict[str, Any]:
    """Return the one description of all these calls, of whatever services."""
    return openapi_document(TITLE, API_VERSION, calls, about=ABOUT)


def add_docs(app: web.Application, calls: Iterable[Operation]) -> None:
    """Serve the description of `calls` on `app`; it is rendered once, here."""
    described = document(calls)
    as_json, as_html = msgspec.json.encode(described), page(described).encode()

    async def openapi_json(_: web.Request) -> web.Response:
        return web.Response(body=as_json, content_type="application/json", headers={"Cache-Control": "no-cache"})

    async def docs(_: web.Request) -> web.Response:
        return web.Response(body=as_html, content_type="text/html", charset="utf-8", headers=_PAGE_HEADERS)

    app.add_routes([web.get("/openapi.json", openapi_json), web.get("/docs", docs)])
