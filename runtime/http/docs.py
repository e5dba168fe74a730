"""`/openapi.json` and `/docs`: the description of HTTP operations, for programs and for people.

Separate from the operations themselves, because several services on one origin share one description.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from runtime.http.docs_page import STYLE, page
from runtime.http.openapi import openapi_document
from runtime.http.operation import Operation


@dataclass(frozen=True, slots=True)
class ApiInfo:
    """The head of a description. `version` is the interface's: it changes when an existing client would break."""

    title: str
    version: str
    about: str


# The page has no script and loads nothing; the policy allows only its own style sheet, by its hash.
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def document(api: ApiInfo, operations: Iterable[Operation]) -> dict[str, Any]:
    """Return one OpenAPI document for all these operations, of one service or of several."""
    return openapi_document(api.title, api.version, operations, about=api.about)


def add_docs(app: web.Application, api: ApiInfo, operations: Iterable[Operation]) -> None:
    """Serve the description of the operations on `app`; it is rendered once, here."""
    described = document(api, operations)
    as_json, as_html = msgspec.json.encode(described), page(described).encode()

    async def openapi_json(_: web.Request) -> web.Response:
        return web.Response(body=as_json, content_type="application/json", headers={"Cache-Control": "no-cache"})

    async def docs(_: web.Request) -> web.Response:
        return web.Response(body=as_html, content_type="text/html", charset="utf-8", headers=_PAGE_HEADERS)

    app.add_routes([web.get("/openapi.json", openapi_json), web.get("/docs", docs)])
