"""schemathesis against `POST /readings`: no request made from the document gets an answer that it does not describe."""

from collections import Counter
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from access.public_api import PUBLIC_API
from access.revocations import RevocationList
from access.tokens import KeySet
from gateway.app import gateway_service
from gateway.settings import GatewaySettings
from runtime.http.docs import add_docs
from runtime.http.listen import listen
from runtime.http.problems import Handler, problem_middleware
from testing.issuer import ISSUER
from tests.fuzzing import fuzz
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, jwks, nothing_revoked

EXAMPLES = 300
# Not `negative_data_rejection`: a bad reading is reported in a 202, with the good ones.
# Not `positive_data_acceptance`: how far ahead a time may be, no schema can say.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,allow_header_conformance,ignored_auth"
)


async def test_hundreds_of_requests_get_no_internal_error_and_only_described_answers(
    fake_broker: FakeBroker, tmp_path: Path, seed: int
) -> None:
    fake_broker.outgoing.auto_confirm = True
    answers: Counter[int] = Counter()

    @web.middleware
    async def counting(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        answers[response.status] += 1
        return response

    chosen = GatewaySettings(broker_url="embedded://unused", auth_url="http://unused", token_issuer=ISSUER, ops_port=0)
    app = web.Application(middlewares=[counting, problem_middleware])
    async with (
        RevocationList(nothing_revoked).kept_fresh() as revocations,
        gateway_service(
            chosen, broker=fake_broker, keys=KeySet(jwks), revocations=revocations, registry=CollectorRegistry()
        ) as service,
    ):
        service.add_routes(app)
        add_docs(app, PUBLIC_API, service.calls)
        async with listen(app, "127.0.0.1", 0) as port:
            options = ["--header", f"Authorization: Bearer {ISSUING.device()}", "--header", "X-Device-Id: device-1"]
            options += ["--max-examples", str(EXAMPLES)]
            url = f"http://127.0.0.1:{port}"
            generated, report = await fuzz(url, *options, checks=CHECKS, seed=seed, folder=tmp_path)
    print(report, dict(sorted(answers.items())), f"seed {seed}")
    assert generated >= EXAMPLES
    assert not [status for status in answers if status >= 500]
    assert {202, 400, 401, 405, 422} <= set(answers)
    assert fake_broker.outgoing.messages  # some of the requests were readings
