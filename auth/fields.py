"""Reading bodies and queries field by field, so that one answer names all that is wrong."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from runtime.bodies import read_json
from runtime.problems import FieldError, Problem

Fields = TypeVar("Fields", bound=msgspec.Struct)

# Beyond these a body is noise, and the answer need not grow with it.
MAX_FIELD_ERRORS = 20
_SHOWN_CHARS = 64


async def read_fields(request: web.Request, fields_type: type[Fields]) -> Fields:
    """Decode the request's JSON object; Problem 422 names the wrong, the missing and the unknown fields."""
    body = await _read_any(request)
    if not isinstance(body, dict):
        raise Problem(422, "The body must be a JSON object.")
    known = {field.encode_name for field in msgspec.structs.fields(fields_type)}
    errors = [
        FieldError(name[:_SHOWN_CHARS], "unknown", "There is no such field.") for name in body if name not in known
    ]
    return _convert(body, fields_type, errors, strict=True)


def read_query(request: web.Request, fields_type: type[Fields]) -> Fields:
    """Convert the request's query; Problem 422 names the wrong parameters, unknown ones are none of our business."""
    return _convert(request.query, fields_type, [], strict=False)


async def _read_any(request: web.Request) -> object:
    # The whole body first, whatever it holds: what is not JSON to its end is 400, and only then are fields judged.
    try:
        return await read_json(request, object)
    except Problem as problem:
        if problem.status == 422:  # of any type: a number beyond all ranges
            raise Problem(400, "The body has a number that cannot be read.") from problem
        raise


def _convert(given: Mapping[str, Any], fields_type: type[Fields], errors: list[FieldError], *, strict: bool) -> Fields:
    values = {}
    for field in msgspec.structs.fields(fields_type):
        name = field.encode_name
        if name in given:
            try:
                values[field.name] = msgspec.convert(given[name], field.type, strict=strict)
            except msgspec.ValidationError as error:
                errors.append(FieldError(name, "invalid", str(error)))
        elif field.required:
            errors.append(FieldError(name, "missing", "This field is required."))
    if errors:
        raise Problem(422, "The request has the wrong form.", errors=tuple(errors[:MAX_FIELD_ERRORS]))
    return fields_type(**values)
