"""READER → EYES: the dashboard's files, as they lie beside this, and plotly's own script out of its package.

No build step: what is here is what the browser gets. Nothing comes from another origin, and the page's policy says so.
"""

import gzip
import hashlib
from functools import cache
from importlib.resources import files

from aiohttp import web

# No inline script and no inline style sheet; what styles plotly sets, it sets on elements that are there.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
PAGE = "index.html"
CHART = "plotly.min.js"


class _File:
    """One file in memory, packed once."""

    def __init__(self, name: str, content: bytes) -> None:
        self.kind = _TYPES[name.rpartition(".")[2]]
        self.packed = gzip.compress(content, 6, mtime=0)
        self.etag = hashlib.sha256(content).hexdigest()[:20]
        self.content = content


class Dashboard:
    """Serves `/` and `/dashboard/…`."""

    def add_routes(self, app: web.Application) -> None:
        """Add the page and its files to `app`."""
        app.add_routes([web.get("/", self._page), web.get("/dashboard/{name}", self._file)])

    async def _page(self, request: web.Request) -> web.Response:
        return _answer(request, _found(PAGE))

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == PAGE or name not in _names():
            raise web.HTTPNotFound
        return _answer(request, _found(name))


def _answer(request: web.Request, file: _File) -> web.Response:
    headers = {**_HEADERS, "ETag": f'"{file.etag}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if file.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=file.packed, content_type=file.kind, charset="utf-8", headers=headers)
    return web.Response(body=file.content, content_type=file.kind, charset="utf-8", headers=headers)


@cache
def _names() -> frozenset[str]:
    return frozenset({CHART, *(item.name for item in files("reader.page").iterdir() if item.name[-3:] != ".py")})


@cache
def _found(name: str) -> _File:
    folder = files("plotly") / "package_data" if name == CHART else files("reader.page")
    return _File(name, (folder / name).read_bytes())
