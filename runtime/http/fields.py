"""Conversion of requests to typed structs, field by field, so that one response reports every wrong field."""

import re
from collections.abc import Collection, Mapping
from functools import cache
from inspect import isclass
from typing import Any, TypeVar, cast

import msgspec
from aiohttp import web
from msgspec import inspect

from runtime.http.problems import FieldError, Problem, bad_body
from runtime.http.wording import all_parts, in_words, rule

Value = TypeVar("Value")
Fields = TypeVar("Fields", bound=msgspec.Struct)

# A line of text, as a JSON Schema pattern: no Unicode control characters, not even NUL.
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)"
ONE_LINE_RULE = rule("one line of text, without control characters")

# A body with more mistakes is garbage, and the response need not grow with it.
MAX_FIELD_ERRORS = 20
_SHOWN_CHARS = 64

# msgspec reports the place as "… - at `$.email`" and an unknown field as "… unknown field `role`".
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(.*)`$", re.DOTALL)
_WHOLE = re.compile(r"-?[0-9]+")
_MISSING = re.compile(r"missing required field `(.*)`$", re.DOTALL)

# msgspec resolves the annotations of all fields each time: 30 us.
_fields_of = cache(msgspec.structs.fields)


class Body(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Base of request bodies: camelCase names, and no fields that are not declared."""


def convert_body(given: Any, body_type: type[Value]) -> Value:
    """Convert parsed JSON; raise Problem 422, which for a struct names every wrong field."""
    struct: Any = body_type  # `list[Reading]` and unions are not classes, whatever the annotation says
    if isclass(struct) and issubclass(struct, msgspec.Struct):
        return cast("Value", _convert_object(given, struct))
    try:
        return msgspec.convert(given, body_type, str_keys=True)
    except msgspec.ValidationError as error:
        raise Problem(422, "The body has the wrong form.", errors=(_field_error("", str(error), body_type),)) from error


def _convert_object(given: Any, body_type: type[Fields]) -> Fields:
    if not isinstance(given, dict):
        raise bad_body("The body must be a JSON object.", status=422)
    known = {field.encode_name for field in _fields_of(body_type)}
    errors = [
        FieldError(name[:_SHOWN_CHARS], "unknown", "There is no such field.") for name in given if name not in known
    ]
    return _convert(given, body_type, errors, strict=True)


def read_query(request: web.Request, query_type: type[Fields], *, once: Collection[str] = ()) -> Fields:
    """Convert the query string; raise Problem 422 naming wrong and repeated parameters, and ignore unknown ones.

    A parameter whose type allows a list may be given several times: then its value is a list. `once`: parameters that
    this request must have exactly once, although their type allows none or several.
    """
    query: dict[str, Any] = {}
    errors = []
    for name, may_repeat in _parameters(query_type).items():
        given = request.query.getall(name, [])
        if len(given) > 1 and (not may_repeat or name in once):
            errors.append(FieldError(name, "repeated", "This parameter can be given once."))
        if given:
            query[name] = given if may_repeat and len(given) > 1 else given[0]
    return _convert(query, query_type, errors, strict=False, required=once)


@cache
def _parameters(query_type: type[msgspec.Struct]) -> dict[str, bool]:
    """Return the parameters of a query, and whether each may be given several times: its type is, or allows, a list."""
    return {
        field.encode_name: any(isinstance(part, inspect.ListType) for part in all_parts(field.type))
        for field in _fields_of(query_type)
    }


def _convert(
    given: Mapping[str, Any],
    fields_type: type[Fields],
    errors: list[FieldError],
    *,
    strict: bool,
    required: Collection[str] = (),
) -> Fields:
    values = {}
    for field in _fields_of(fields_type):
        name = field.encode_name
        if name in given:
            try:
                value = values[field.name] = msgspec.convert(given[name], field.type, strict=strict, str_keys=True)
                # From text, msgspec also accepts 10.0 and 1e1 as whole numbers.
                if not strict and type(value) is int and not _WHOLE.fullmatch(given[name]):
                    errors.append(FieldError(name, "invalid", "This must be a whole number, in digits."))
            except msgspec.ValidationError as error:
                errors.append(_field_error(name, str(error), field.type, from_text=not strict))
        elif field.required or name in required:
            errors.append(FieldError(name, "missing", "This field is required."))
    if errors:
        raise Problem(422, "The request has the wrong form.", errors=tuple(errors[:MAX_FIELD_ERRORS]))
    return fields_type(**values)


def _field_error(name: str, message: str, kind: Any, *, from_text: bool = False) -> FieldError:
    place = _PLACE.search(message)
    text = _PLACE.sub("", message)
    # A query has no lists, only repetitions: there the place is an index that its sender does not know.
    where = [name, place.group(1) if place and not from_text else ""]
    for pattern, code in ((_UNKNOWN, "unknown"), (_MISSING, "missing")):
        if named := pattern.search(text):
            where.append(named.group(1)[:_SHOWN_CHARS])
            text = "There is no such field." if code == "unknown" else "This field is required."
            return FieldError(_path(where), code, text)
    return FieldError(_path(where), "invalid", f"This {in_words(text, kind, from_text=from_text)}.")


def _path(parts: list[str]) -> str:
    return ".".join(part for part in parts if part).replace(".[", "[")
