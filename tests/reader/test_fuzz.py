"""schemathesis against the reader's OpenAPI document: no server error, and no response outside the document."""

from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from access.public_api import PUBLIC_API
from access.revocations import RevocationList
from access.tokens import KeySet
from broker.embedded.broker import EmbeddedBroker
from reader.app import reader_service
from reader.settings import ReaderSettings
from runtime.http.docs import add_docs
from runtime.http.listen import listen
from runtime.http.problems import Handler, problem_middleware
from testing.issuer import ISSUER
from tests.fuzzing import fuzz
from tests.reader.harness import (
    DEVICE,
    SENSOR,
    TS,
    Mongo,
    Store,
    jwks,
    make_reading,
    no_devices,
    no_revocations,
    user_token,
)

EXAMPLES = 60
# Not `positive_data_acceptance`: no schema can describe valid times and cursors.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,ignored_auth"
)
# Half of the values valid by the schema become requests that succeed.
HOOKS = f"""
import random
import urllib.parse

import schemathesis

GOOD = {{"device": {DEVICE!r}, "sensorType": {SENSOR!r}, "every": "1m", "from": "{TS}", "to": "{TS + 3_600_000}"}}
LONGEST = {{"device": 256, "sensorType": 256, "every": 16, "from": 64, "to": 64}}


@schemathesis.hook
def map_query(context, query):
    query = dict(query or {{}})
    if random.random() < 0.5:
        for name, longest in LONGEST.items():
            given = query.get(name)
            if isinstance(given, str) and (0 < len(given) <= longest):
                query[name] = GOOD[name]
    return query
"""
# A valid token with an invalid query, or the other way round.
CONFIG = """[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 405, 414, 422, 431]
"""


async def test_hundreds_of_requests_meet_no_fault_and_nothing_undescribed(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store, tmp_path: Path, seed: int
) -> None:
    values: list[Any] = [1, 2.5, -(2**63), True, "text"]
    await store.insert(*(make_reading(values[n % 5], TS + n * 1000, unit="u", tags={"a": "b"}) for n in range(300)))
    await store.insert(make_reading(1, location="here", sensor="other"))
    answers: Counter[int] = Counter()
    shown: Counter[str] = Counter()

    @web.middleware
    async def counting(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        answers[response.status] += 1
        if response.status == 200 and isinstance(response, web.Response) and response.body != b'{"items":[]}':
            shown[request.path] += 1
        return response

    chosen = ReaderSettings(
        broker_url="embedded://unused",
        auth_url="http://unused",
        readings_url=mongodb_database[0],
        readings_database=mongodb_database[1],
        token_issuer=ISSUER,
    )
    app = web.Application(middlewares=[counting, problem_middleware])
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    (tmp_path / "reader_hooks.py").write_text(HOOKS)
    async with (
        RevocationList(no_revocations).kept_fresh() as revocations,
        reader_service(
            chosen,
            broker=broker,
            keys=KeySet(jwks),
            revocations=revocations,
            devices=no_devices,
            registry=CollectorRegistry(),
        ) as service,
    ):
        service.add_routes(app)
        add_docs(app, PUBLIC_API, service.calls)
        async with listen(app, "127.0.0.1", 0) as port:
            options = ["--header", f"Authorization: Bearer {user_token()}", "--max-examples", str(EXAMPLES)]
            options += ["--exclude-path", "/live"]  # it never ends
            hooks = {"SCHEMATHESIS_HOOKS": "reader_hooks", "PYTHONPATH": f"{Path.cwd()}:{tmp_path}"}
            url = f"http://127.0.0.1:{port}"
            generated, report = await fuzz(url, *options, checks=CHECKS, seed=seed, folder=tmp_path, **hooks)
    print(report, dict(sorted(answers.items())), dict(shown), f"seed {seed}")
    assert generated >= 3 * EXAMPLES
    assert not [status for status in answers if status >= 500]
    assert {200, 401, 405, 422} <= set(answers)
    assert set(shown) >= {"/readings", "/readings/latest", "/series", "/series/search", "/pipeline"}
