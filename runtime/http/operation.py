"""One HTTP call, declared once: its route and its description in OpenAPI both come from here."""

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
    """What a call takes and gives. Types are msgspec's; what validates a request also describes it."""

    method: str
    path: str
    """As aiohttp writes it: `/devices/{id}`."""
    handler: Handler
    tag: str
    summary: str
    """One line, without a full stop."""
    description: str = ""
    body: Any = None
    """Type of the body; None: the call takes none."""
    body_required: bool = True
    body_types: tuple[str, ...] = (JSON,)
    query: Any = None
    """A struct, each field one parameter."""
    request_headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that the call reads beside the usual ones, and what for."""
    answers: Mapping[int, Any]
    """Successes: the type of the body by status, None for an answer without body."""
    answer_types: tuple[str, ...] = (JSON,)
    """Of answers with a body. Types other than JSON are described as text."""
    headers: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Headers of successes by status: name and meaning."""
    problems: tuple[int, ...] = ()
    """Refusals beside those that `all_problems` adds for a body, a query, a token."""
    secured: bool = False
    """Takes a Bearer token."""
    internal: bool = False
    """For other services only: not in the public document, not on the shared origin."""

    def route(self) -> web.RouteDef:
        """Return what to add to an application; GET answers HEAD as well."""
        return web.route(self.method, self.path, self.handler)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the path."""
        return tuple(_PARAMETER.findall(self.path))

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it, without aiohttp's patterns."""
        return _PARAMETER.sub(r"{\1}", self.path)

    @property
    def operation_id(self) -> str:
        """A name for programs, unique because method and path are: `getDevicesId`."""
        words = _NOT_A_WORD.split(self.template)
        return self.method.lower() + "".join(word[:1].upper() + word[1:] for word in words)

    @property
    def all_problems(self) -> tuple[int, ...]:
        """Every status of a refusal.

        Any call may meet a request that is no HTTP (400), an address (414) or a header (431) that is too long, a
        dependency that is away (503).
        """
        usual = {400, 414, 431, 503}
        if self.body is not None:
            usual |= {408, 413, 415, 422}
        if self.query is not None:
            usual |= {422}
        if self.secured:
            usual |= {401}
        return tuple(sorted(usual | set(self.problems)))
