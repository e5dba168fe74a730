"""READER → BROWSERS: the dashboard's files from `reader/page`, and plotly's script from its Python package.

There is no build step. Everything comes from the same origin, which the content security policy enforces.
"""

import gzip
import hashlib
from functools import cache
from importlib.resources import files

from aiohttp import web

# No inline scripts or style sheets; plotly sets its styles on elements directly.
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
    """One file in memory, compressed once."""

    def __init__(self, name: str, content: bytes) -> None:
        self.content_type = _TYPES[name.rpartition(".")[2]]
        self.compressed = gzip.compress(content, 6, mtime=0)
        self.etag = hashlib.sha256(content).hexdigest()[:20]
        self.content = content


class Dashboard:
    """Serves `/` and `/dashboard/…`."""

    def add_routes(self, app: web.Application) -> None:
        """Add the page and its files to `app`."""
        app.add_routes([web.get("/", self._page), web.get("/dashboard/{name}", self._file)])

    async def _page(self, request: web.Request) -> web.Response:
        return _response(request, _load(PAGE))

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == PAGE or name not in _names():
            raise web.HTTPNotFound
        return _response(request, _load(name))


def _response(request: web.Request, file: _File) -> web.Response:
    headers = {**_HEADERS, "ETag": f'"{file.etag}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if file.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=file.compressed, content_type=file.content_type, charset="utf-8", headers=headers)
    return web.Response(body=file.content, content_type=file.content_type, charset="utf-8", headers=headers)


@cache
def _names() -> frozenset[str]:
    return frozenset({CHART, *(item.name for item in files("reader.page").iterdir() if item.name[-3:] != ".py")})


@cache
def _load(name: str) -> _File:
    folder = files("plotly") / "package_data" if name == CHART else files("reader.page")
    return _File(name, (folder / name).read_bytes())
