"""Schemas of an OpenAPI document from types, in the form that client generators understand.

Generators treat a field with a `default` as always present: openapi-typescript makes it required, in requests too. So
no field has a default; an optional field is simply not in `required`.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import inspect

from runtime.http.operation import Operation
from runtime.http.wording import parts_of

Schema = dict[str, Any]
Struct = type[msgspec.Struct]

REF = "#/components/schemas/{name}"
_NULL = {"type": "null"}


def schemas_of(calls: Iterable[Operation], others: Iterable[Any] = ()) -> tuple[dict[int, Schema], dict[str, Schema]]:
    """Return the schema of each type that the operations use, by the type's `id()`, and the named components.

    Raises ValueError if two types share a name.
    """
    types, request_types = [*others], []
    for call in calls:
        bodies = [call.body] if call.body is not None else []
        types += [*bodies, *(kind for kind in call.responses.values() if kind is not None)]
        if call.query is not None:
            types += [field.type for field in msgspec.structs.fields(call.query)]
        request_types += bodies
    found, components = msgspec.json.schema_components(types, ref_template=REF)
    structs = _structs(types)
    if set(structs) != set(components):
        raise ValueError(f"two types have one name: {set(structs) ^ set(components)}")
    same = {name: base for name, struct in structs.items() if (base := _base_name(struct)) in structs}
    in_bodies = {same.get(name, name) for name in _structs(request_types)}
    for name, struct in structs.items():
        _describe_presence(components[name], struct, response=name not in in_bodies)
    schemas = {id(kind): _tidy(schema, same) for kind, schema in zip(types, found, strict=True)}
    return schemas, {name: _tidy(schema, same) for name, schema in components.items() if name not in same}


def _structs(types: Iterable[Any]) -> dict[str, inspect.StructType]:
    """Return every struct within the types, at any depth, by its name."""
    found: dict[str, inspect.StructType] = {}
    waiting: list[Any] = list(inspect.multi_type_info(types))
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, inspect.StructType):
            if kind.cls.__name__ in found:
                continue
            found[kind.cls.__name__] = kind
        waiting += parts_of(kind)
    return found


def _describe_presence(schema: Schema, struct: inspect.StructType, *, response: bool) -> None:
    """List in `required` the fields that are always present.

    A response includes fields with defaults unless it omits defaults; then a field whose default is null is never null.
    """
    leaves_out = struct.cls.__struct_config__.omit_defaults
    for field in struct.fields:
        given = schema["properties"][field.encode_name]
        given.pop("default", None)
        if not response or field.required or not _has_default(field):
            continue
        if not leaves_out:
            schema["required"].append(field.encode_name)
        elif field.default is None and _NULL in given.get("anyOf", ()):
            given["anyOf"].remove(_NULL)
            if len(given["anyOf"]) == 1:
                given |= given.pop("anyOf")[0]


def _has_default(field: inspect.Field) -> bool:
    """Return whether an omitted field gets a value; UNSET is not one."""
    values = (field.default, field.default_factory)
    return any(value is not msgspec.NODEFAULT and value is not msgspec.UNSET for value in values)


def _base_name(struct: inspect.StructType) -> str | None:
    """Return the name of the base struct if this one only adds checks to it, and no field."""
    base = struct.cls.__bases__[0]
    fields = getattr(base, "__struct_encode_fields__", ())
    return base.__name__ if fields == struct.cls.__struct_encode_fields__ else None


def _tidy(schema: Any, same: dict[str, str]) -> Any:
    """Name each struct after its base; convert patterns to JSON Schema's dialect and docstrings to one line."""
    if isinstance(schema, dict):
        return {
            key: _text(key, value, same) if isinstance(value, str) else _tidy(value, same)
            for key, value in schema.items()
        }
    return [_tidy(item, same) for item in schema] if isinstance(schema, list) else schema


def _text(key: str, value: str, same: dict[str, str]) -> str:
    match key:
        case "pattern":  # there, `$` never matches before a last newline
            return value.removesuffix(r"(?!\n)")
        case "description":
            return " ".join(value.split())
        case "$ref":
            name = value.rsplit("/", 1)[1]
            return REF.format(name=same.get(name, name))
    return value
