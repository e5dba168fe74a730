"""HTTP operations, each declared once: route and OpenAPI description come from the same declaration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from runtime.http.problems import Handler

JSON = "application/json"

_PARAMETER = re.compile(r"{([A-Za-z_]\w*)(?::[^{}]*)?}")
_NOT_A_WORD = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation's parameters, body, responses and handler. The msgspec types validate and describe requests."""

    method: str
    path: str
    """In aiohttp's syntax: `/devices/{id}`."""
    handler: Handler
    tag: str
    summary: str
    """One line, without a full stop."""
    description: str = ""
    body: Any = None
    """Type of the request body; None: no body."""
    body_required: bool = True
    body_types: tuple[str, ...] = (JSON,)
    query: Any = None
    """A struct with a field for each query parameter."""
    request_headers: Mapping[str, str] = field(default_factory=dict)
    """Additional request headers: name and meaning."""
    responses: Mapping[int, Any]
    """Success responses: the type of the body by status, None for no body."""
    response_types: tuple[str, ...] = (JSON,)
    """Media types of responses with a body. Types other than JSON are described as text."""
    headers: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Headers of success responses by status: name and meaning."""
    problems: tuple[int, ...] = ()
    """Statuses of refusals, in addition to those that `all_problems` derives from body, query and token."""
    secured: bool = False
    """Requires a Bearer token."""
    internal: bool = False
    """For other services only: neither in the public document nor on the shared origin."""

    def route(self) -> web.RouteDef:
        """Return the route to add to an application; GET also serves HEAD."""
        return web.route(self.method, self.path, self.handler)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the path."""
        return tuple(_PARAMETER.findall(self.path))

    @property
    def template(self) -> str:
        """The path in OpenAPI's syntax, without aiohttp's patterns."""
        return _PARAMETER.sub(r"{\1}", self.path)

    @property
    def operation_id(self) -> str:
        """A name for generated clients, unique like method and path: `getDevicesId`."""
        words = _NOT_A_WORD.split(self.template)
        return self.method.lower() + "".join(word[:1].upper() + word[1:] for word in words)

    @property
    def all_problems(self) -> tuple[int, ...]:
        """The statuses of all refusals.

        Any operation may receive malformed HTTP (400), a request target (414) or a header (431) that is too long, or
        find a dependency away (503).
        """
        usual = {400, 414, 431, 503}
        if self.body is not None:
            usual |= {408, 413, 415, 422}
        if self.query is not None:
            usual |= {422}
        if self.secured:
            usual |= {401}
        return tuple(sorted(usual | set(self.problems)))
