"""Where auth's calls take their bodies and queries from."""

from typing import TypeVar

from aiohttp import web

from runtime.bodies import read_json
from runtime.fields import read_query

__all__ = ["read_fields", "read_query"]

Fields = TypeVar("Fields")


async def read_fields(request: web.Request, fields_type: type[Fields]) -> Fields:
    """Decode the request's JSON object; Problem 422 names the wrong, the missing and the unknown fields."""
    return await read_json(request, fields_type)
