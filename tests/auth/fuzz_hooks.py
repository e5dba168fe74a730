"""Hooks for schemathesis: how to log in. Loaded by schemathesis (SCHEMATHESIS_HOOKS), not by pytest.

Calls that end a session get a user of their own each time, so that the others go on with a token that serves.
"""

import itertools
import os
from typing import Any

import requests
import schemathesis

PASSWORD = "correct horse battery"
ENDING = {("POST", "/user/logout"), ("PATCH", "/user/me"), ("DELETE", "/user/me")}

_url = os.environ.get("FUZZED_URL", "")
_number = itertools.count()
_kept: list[str] = []


def new_token() -> str:
    """Sign up, log in, and return the access token."""
    email = f"fuzz-{os.getpid()}-{next(_number)}@example.org"
    user = {"name": "Fuzz", "email": email, "password": PASSWORD}
    requests.post(f"{_url}/user/signup", json=user, timeout=10).raise_for_status()
    answer = requests.post(f"{_url}/user/login", json={"email": email, "password": PASSWORD}, timeout=10)
    answer.raise_for_status()
    return str(answer.json()["accessToken"])


@schemathesis.auth(refresh_interval=None)
class Token:
    """A real token for every request."""

    def get(self, case: schemathesis.Case[Any], _: schemathesis.AuthContext) -> str:
        if (case.method.upper(), case.path) in ENDING:
            return new_token()
        if not _kept:
            _kept.append(new_token())
        return _kept[0]

    def set(self, case: schemathesis.Case[Any], data: str, _: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"
