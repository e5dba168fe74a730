"""JSON bodies in and out of HTTP: read as bytes, checked once, decoded into a typed struct.

aiohttp's own `request.json()` answers bad JSON with 500, takes `text/plain` and NaN; this does not.
"""

import asyncio
import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from runtime.problems import FieldError, Problem

Body = TypeVar("Body")

MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0

# msgspec names the place as "… - at `$.email`" and an unknown field as "… unknown field `role`".
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")


async def read_json(request: web.Request, body_type: type[Body], *, max_bytes: int = MAX_BODY_BYTES) -> Body:
    """Decode the request's JSON body as `body_type`; Problem 400, 408, 413, 415 or 422 when it is not one."""
    if request.content_type != "application/json":
        raise Problem(415, "The body must be application/json.")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise Problem(415, "JSON is UTF-8; no other charset is taken.")
    raw = await read_bytes(request, max_bytes)
    try:
        return msgspec.json.decode(raw, type=body_type)
    except msgspec.ValidationError as error:
        raise Problem(422, "The body has the wrong form.", errors=(_field_error(str(error)),)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"The body is not JSON: {error}") from error


async def read_bytes(request: web.Request, max_bytes: int) -> bytes:
    """Read the whole body within a bound of size and time; Problem 413 or 408 beyond them."""
    if (request.content_length or 0) > max_bytes:
        raise Problem(413, f"The body may have at most {max_bytes} bytes.")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.content.iter_any():
                size += len(part)
                if size > max_bytes:
                    raise Problem(413, f"The body may have at most {max_bytes} bytes.")
                parts.append(part)
    except TimeoutError as error:
        raise Problem(408, f"The body did not arrive within {BODY_TIMEOUT_S:g} s.") from error
    return b"".join(parts)


def _field_error(message: str) -> FieldError:
    place = _PLACE.search(message)
    where = place.group(1) if place else ""
    text = _PLACE.sub("", message)
    for pattern, code in ((_UNKNOWN, "unknown"), (_MISSING, "missing")):
        if named := pattern.search(text):
            return FieldError(f"{where}.{named.group(1)}".lstrip("."), code, text)
    return FieldError(where, "invalid", text)


def json_response(body: Any, status: int = 200) -> web.Response:
    """Answer with JSON that no cache keeps: answers here belong to one user at one time."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
