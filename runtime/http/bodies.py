"""JSON bodies of requests and responses: read within bounds, parsed to the end, decoded into a typed struct.

aiohttp's `request.json()` turns bad JSON into 500 and accepts `text/plain`, NaN and duplicate keys; this does not.
"""

import asyncio
import zlib
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from runtime.http.fields import convert_body
from runtime.http.json_text import NotJsonError, parse
from runtime.http.problems import Problem, bad_body

Body = TypeVar("Body")

MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0

# zlib's window bits: gzip (RFC 1952) and deflate (RFC 1950, in its zlib form).
_WINDOW = {"gzip": 31, "deflate": 15}


async def read_json(request: web.Request, body_type: type[Body], *, max_bytes: int = MAX_BODY_BYTES) -> Body:
    """Decode the request's JSON body as `body_type`; raise Problem 400, 408, 413, 415 or 422 if that fails.

    Fields are checked only once the whole body is valid JSON. All wrong fields of a struct are reported.
    """
    if request.content_type != "application/json":
        raise Problem(415, "The body must be application/json.")
    require_utf8(request)
    return convert_body(parse_json(await read_bytes(request, max_bytes)), body_type)


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON body; raise Problem 400 as `runtime.http.json_text.parse` refuses it."""
    try:
        return parse(raw)
    except NotJsonError as error:
        raise bad_body(str(error)) from error


def require_utf8(request: web.Request) -> None:
    """Raise Problem 415 if the request says that its text has another charset."""
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise Problem(415, "The body must be UTF-8; no other charset is accepted.")


async def read_bytes(request: web.Request, max_bytes: int, *, timeout_s: float | None = None) -> bytes:
    """Read and decompress the whole body, bounded in size and time; raise Problem 400, 408, 413 or 415.

    `timeout_s`: BODY_TIMEOUT_S without another.
    """
    timeout_s = BODY_TIMEOUT_S if timeout_s is None else timeout_s
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity" and encoding not in _WINDOW:
        names = list(_WINDOW)
        raise Problem(
            415, f"A body may be compressed with {' or '.join(names)}.", headers={"Accept-Encoding": ", ".join(names)}
        )
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            raw = await _read_within(request, max_bytes)
    except TimeoutError as error:
        raise Problem(408, f"The body did not arrive within {timeout_s:g} s.") from error
    except web.RequestPayloadError as error:
        raise bad_body("The body does not have the length or encoding that its headers announce.") from error
    return raw if encoding == "identity" else _decompress(raw, encoding, max_bytes)


async def _read_within(request: web.Request, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def _decompress(compressed: bytes, encoding: str, max_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=_WINDOW[encoding])
    try:
        raw = decompressor.decompress(compressed, max_bytes + 1)
    except zlib.error as error:
        raise bad_body(f"The body is not valid {encoding}.") from error
    if len(raw) > max_bytes:
        raise _too_large(max_bytes)
    if not decompressor.eof or decompressor.unused_data:  # truncated before its checksum, or followed by other data
        raise bad_body(f"The body is not valid {encoding} from its first byte to its last.")
    return raw


def _too_large(max_bytes: int) -> Problem:
    return Problem(413, f"The body may have at most {max_bytes} bytes.", code="too_large", extra={"limit": max_bytes})


def json_response(body: Any, status: int = 200) -> web.Response:
    """Return a JSON response that caches must not store, as it is for one user at one time."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
