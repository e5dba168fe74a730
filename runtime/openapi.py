"""Calls to an OpenAPI 3.1 document: the types that validate requests are the ones that describe them.

In: lists of `Call`, of one service or of several. Out: a JSON-ready dict, the same for the same calls.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from runtime.calls import JSON, Call
from runtime.problems import FieldError

Schema = dict[str, Any]

PROBLEM_TYPE = "application/problem+json"
_REF = "#/components/schemas/{name}"


class ProblemAnswer(msgspec.Struct, rename="camel", omit_defaults=True):
    """A refusal (RFC 9457). `code` is for programs, `detail` for people, `errors` names the wrong fields of a body.

    `limit` and `scope` say which bound was met, `retryAfterMs` when to ask again.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str = ""
    errors: list[FieldError] = []
    limit: int = 0
    scope: str = ""
    retry_after_ms: int = 0


_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "what kind of token is wanted (RFC 6750)"},
    415: {"Accept-Encoding": "how a body may be packed, where that was wrong"},
    429: {"Retry-After": "after how many seconds to ask again"},
    503: {"Retry-After": "after how many seconds to ask again"},
}
_WHEN = {
    400: "not HTTP or not JSON",
    401: "no token, or none that serves",
    403: "known, but not allowed",
    404: "there is no such thing, or it is another's",
    408: "the body did not arrive in time",
    409: "it exists already",
    413: "the body is too large",
    414: "the address is too long",
    415: "the body is of another type, charset or packing",
    422: "fields are missing, wrong or unknown; `errors` names them",
    429: "too often; nothing was done",
    431: "a header is too long",
    503: "a part behind the service is away or busy; nothing was done",
}


def openapi_document(title: str, version: str, calls: Iterable[Call], *, about: str = "") -> dict[str, Any]:
    """Describe the calls that are not internal. Several services' lists joined give one document.

    Raises ValueError when two calls have one method and path, or two types one name.
    """
    public = [call for call in calls if not call.internal]
    schema_of, schemas = _schemas(public)
    paths: dict[str, dict[str, Any]] = {}
    for call in public:
        operations = paths.setdefault(call.template, {})
        if call.method.lower() in operations:
            raise ValueError(f"{call.method} {call.path} is declared twice")
        operations[call.method.lower()] = _operation(call, schema_of)
    statuses = sorted({status for call in public for status in call.all_problems})
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version} | ({"description": about} if about else {}),
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(call.tag for call in public)],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "responses": {_response_name(status): _problem(status) for status in statuses},
            "schemas": schemas,
        },
    }


def _schemas(calls: list[Call]) -> tuple[dict[int, Schema], dict[str, Any]]:
    """Return the schema of each type that the calls name, by the type's identity, and the components."""
    types: list[Any] = [ProblemAnswer]
    for call in calls:
        types += [kind for kind in (call.body, *call.answers.values()) if kind is not None]
        if call.query is not None:
            types += [field.type for field in msgspec.structs.fields(call.query)]
    found, components = msgspec.json.schema_components(types, ref_template=_REF)
    return {id(kind): _ecma(schema) for kind, schema in zip(types, found, strict=True)}, _ecma(components)


def _ecma(schema: Any) -> Any:
    """Rewrite patterns for JSON Schema's dialect, where `$` never matches before a last newline; tidy docstrings."""
    if isinstance(schema, dict):
        return {key: _ecma(value) if not isinstance(value, str) else _text(key, value) for key, value in schema.items()}
    return [_ecma(item) for item in schema] if isinstance(schema, list) else schema


def _text(key: str, value: str) -> str:
    if key == "pattern":
        return value.removesuffix(r"(?!\n)")
    return " ".join(value.split()) if key == "description" else value


def _operation(call: Call, schema_of: dict[int, Schema]) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": call.operation_id, "tags": [call.tag], "summary": call.summary}
    if call.description:
        operation["description"] = call.description
    if parameters := _parameters(call, schema_of):
        operation["parameters"] = parameters
    if call.body is not None:
        content = {kind: {"schema": _schema_for(kind, schema_of[id(call.body)])} for kind in call.body_types}
        operation["requestBody"] = {"required": call.body_required, "content": content}
    responses = {str(status): _success(call, status, schema_of) for status in call.answers}
    for status in call.all_problems:
        responses[str(status)] = {"$ref": f"#/components/responses/{_response_name(status)}"}
    operation["responses"] = responses
    operation["security"] = [{"bearer": []}] if call.secured else []
    return operation


def _parameters(call: Call, schema_of: dict[int, Schema]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in call.parameters
    ]
    for name, meaning in call.request_headers.items():
        parameters.append({"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}})
    for field in msgspec.structs.fields(call.query) if call.query is not None else ():
        schema = dict(schema_of[id(field.type)])
        if not field.required and isinstance(field.default, str | int | float):
            schema["default"] = field.default
        parameters.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    return parameters


def _success(call: Call, status: int, schema_of: dict[int, Schema]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if headers := call.headers.get(status):
        response["headers"] = _headers(headers, required=True)
    kind = call.answers[status]
    if kind is not None:
        response["content"] = {name: {"schema": _schema_for(name, schema_of[id(kind)])} for name in call.answer_types}
    return response


def _schema_for(media_type: str, schema: Schema) -> Schema:
    return schema if media_type == JSON else {"type": "string"}


def _problem(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": _WHEN.get(status, HTTPStatus(status).phrase),
        "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(name=ProblemAnswer.__name__)}}},
    }
    if status in _PROBLEM_HEADERS:
        response["headers"] = _headers(_PROBLEM_HEADERS[status], required=status == 401)
    return response


def _headers(headers: Any, *, required: bool) -> dict[str, Any]:
    return {
        name: {"description": meaning, "required": required, "schema": {"type": "string"}}
        for name, meaning in headers.items()
    }


def _response_name(status: int) -> str:
    return "".join(word.capitalize() for word in HTTPStatus(status).phrase.replace("-", " ").split())
