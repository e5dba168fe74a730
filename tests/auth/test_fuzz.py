"""schemathesis against the service: requests generated from the OpenAPI document get documented responses only."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.public_api import PUBLIC_API
from auth.app import auth_service
from auth.migrate import migrate
from broker.embedded.broker import EmbeddedBroker
from runtime.http.docs import add_docs
from runtime.http.listen import listen
from runtime.http.problems import Handler, problem_middleware
from tests.auth.service import make_settings
from tests.fuzzing import fuzz

REQUESTS = 2000
# Not `positive_data_acceptance`: that a password is common or a session gone, no schema can say.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,"
    "allow_header_conformance,use_after_free,ensure_resource_availability,ignored_auth"
)
# A body can also be too large to be judged at all (413), an address too long (414): schemathesis takes neither for a
# refusal by itself.
CONFIG = """[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 414, 415, 422, 429, 431]
# A bad row is reported in a 200, with the good ones.
[[operations]]
include-path = "/devices/batch"
[operations.checks]
negative_data_rejection.expected-statuses = [200, 400, 401, 403, 404, 405, 409, 413, 414, 415, 422, 429, 431]
"""
UNLIMITED = 1_000_000_000


@asynccontextmanager
async def counted_service(url: str, queue: Path, answers: Counter[int]) -> AsyncIterator[str]:
    """Serve as the process does, with a broker and no gateway behind it, and count the responses by status."""

    @web.middleware
    async def counting(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        answers[response.status] += 1
        return response

    settings = make_settings(
        url,
        account_failures=UNLIMITED,
        account_failures_anywhere=UNLIMITED,
        address_failures=UNLIMITED,
        address_signups=UNLIMITED,
        address_claims=UNLIMITED,
    )
    async with (
        EmbeddedBroker.open_at(queue) as broker,
        auth_service(settings, registry=CollectorRegistry(), broker=broker) as service,
    ):
        app = web.Application(middlewares=[counting, problem_middleware])
        service.add_routes(app)
        add_docs(app, PUBLIC_API, service.calls)
        async with listen(app, "127.0.0.1", 0) as port:
            yield f"http://127.0.0.1:{port}"


@pytest.mark.timeout(600)
async def test_two_thousand_requests_meet_no_fault_and_nothing_undescribed(
    sqlite_url: str, tmp_path: Path, seed: int
) -> None:
    await migrate(sqlite_url)
    answers: Counter[int] = Counter()
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    async with counted_service(sqlite_url, tmp_path / "queue.db", answers) as url:
        hooks = {"SCHEMATHESIS_HOOKS": "tests.auth.fuzz_hooks", "FUZZED_URL": url}
        generated, report = await fuzz(url, "--max-examples", "150", checks=CHECKS, seed=seed, folder=tmp_path, **hooks)
    print(report, dict(sorted(answers.items())), f"seed {seed}")
    assert generated >= REQUESTS
    assert answers.total() >= REQUESTS  # and they did reach the service
    assert not [status for status in answers if status >= 500]
    assert {200, 201, 401, 404, 409, 422} <= set(answers)  # it came through to the calls themselves
