"""OpenAPI 3.1 documents from operations: the types that validate requests also describe them.

Takes `Operation`s of one service or of several, returns a JSON-ready dict, the same for the same operations.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from runtime.http.openapi_schemas import REF, Schema, schemas_of
from runtime.http.operation import JSON, Operation
from runtime.http.problems import FieldError

PROBLEM_TYPE = "application/problem+json"
# Not parameters in OpenAPI: `content` describes the first two, `security` the last.
_NOT_PARAMETERS = {"accept", "content-type", "authorization"}


class ProblemAnswer(msgspec.Struct, rename="camel", omit_defaults=True):
    """A refusal (RFC 9457). `code` is for programs, `detail` for people, `errors` names the wrong fields of a body.

    `limit` and `scope` tell which limit was reached, `retryAfterMs` when to retry.
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
    401: {"WWW-Authenticate": "the kind of token that is required (RFC 6750)"},
    415: {"Accept-Encoding": "the encodings that are accepted, if the body had another"},
    429: {"Retry-After": "seconds to wait before retrying"},
    503: {"Retry-After": "seconds to wait before retrying"},
}
_WHEN = {
    400: "malformed HTTP or JSON",
    401: "no valid token",
    403: "not allowed",
    404: "not found, or owned by another user",
    408: "the body did not arrive in time",
    409: "already exists",
    413: "the body is too large",
    414: "the address is too long",
    415: "the type, charset or encoding of the body is not supported",
    422: "fields are missing, wrong or unknown; `errors` names them",
    429: "too many requests; nothing was done",
    431: "a header is too long",
    503: "the service or one behind it is unavailable or busy; nothing was done",
}


def openapi_document(title: str, version: str, calls: Iterable[Operation], *, about: str = "") -> dict[str, Any]:
    """Describe all operations that are not internal; they may come from several services.

    Raises ValueError if two operations share method and path, if two types share a name, or if an operation declares a
    header as a parameter that OpenAPI does not allow as one.
    """
    public = [call for call in calls if not call.internal]
    schema_of, schemas = schemas_of(public, [ProblemAnswer])
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


def _operation(call: Operation, schema_of: dict[int, Schema]) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": call.operation_id, "tags": [call.tag], "summary": call.summary}
    if call.description:
        operation["description"] = call.description
    if parameters := _parameters(call, schema_of):
        operation["parameters"] = parameters
    if call.body is not None:
        content = _content(call.body_types, schema_of[id(call.body)])
        operation["requestBody"] = {"required": call.body_required, "content": content}
    responses = {str(status): _success(call, status, schema_of) for status in call.responses}
    for status in call.all_problems:
        responses[str(status)] = {"$ref": f"#/components/responses/{_response_name(status)}"}
    operation["responses"] = responses
    operation["security"] = [{"bearer": []}] if call.secured else []
    return operation


def _parameters(call: Operation, schema_of: dict[int, Schema]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in call.parameters
    ]
    for name, meaning in call.request_headers.items():
        if name.lower() in _NOT_PARAMETERS:
            raise ValueError(
                f"{call.method} {call.path}: {name} is described elsewhere (OpenAPI 3.1, Parameter Object)"
            )
        parameters.append({"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}})
    for field in msgspec.structs.fields(call.query) if call.query is not None else ():
        schema = dict(schema_of[id(field.type)])
        if not field.required and isinstance(field.default, str | int | float):
            schema["default"] = field.default
        parameters.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    return parameters


def _success(call: Operation, status: int, schema_of: dict[int, Schema]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if headers := call.headers.get(status):
        response["headers"] = _headers(headers, required=True)
    kind = call.responses[status]
    if kind is not None:
        response["content"] = _content(call.response_types, schema_of[id(kind)])
    return response


def _content(media_types: Iterable[str], schema: Schema) -> dict[str, Any]:
    """Return the content by media type, JSON first: generators use the first type they know."""
    ordered = sorted(media_types, key=lambda media_type: media_type != JSON)
    return {kind: {"schema": schema if kind == JSON else _schema_of_other(kind)} for kind in ordered}


def _schema_of_other(media_type: str) -> Schema:
    """Return the schema of a body that is not JSON: text, or bytes in the form that generators know."""
    text = media_type.startswith("text/") or media_type.endswith("ndjson")
    return {"type": "string"} if text else {"type": "string", "format": "binary"}


def _problem(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": _WHEN.get(status, HTTPStatus(status).phrase),
        "content": {PROBLEM_TYPE: {"schema": {"$ref": REF.format(name=ProblemAnswer.__name__)}}},
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
