"""A reading's way in one trace: from the gateway's publish over RabbitMQ to the insert, as a collector receives it."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runtime.http.listen import listen
from testing.waiting import eventually
from tests.integration.conftest import Pipeline
from tests.integration.device import connected, readings
from tests.integration.services import ROOT, started


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """Take traces as an OpenTelemetry collector does; gives its address, and spans with their service's name."""
    spans: list[tuple[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        for of_service in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            names = {item.key: item.value.string_value for item in of_service.resource.attributes}
            spans.extend((names["service.name"], span) for scope in of_service.scope_spans for span in scope.spans)
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/v1/traces", take)])
    async with listen(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}", spans


async def test_a_readings_way_is_one_trace(pipeline: Pipeline, rabbitmq_url: str) -> None:
    url, database = pipeline.mongodb
    for persister in pipeline.persisters:
        await persister.stop()
    async with collector() as (endpoint, spans):
        export = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        worker = {"BROKER_URL": rabbitmq_url, "READINGS_URL": url, "READINGS_DATABASE": database}
        async with (
            started(
                "gateway", BROKER_URL=rabbitmq_url, AUTH_URL=pipeline.auth.url, BACKFILL_AFTER_SECONDS="0", **export
            ) as gateway,
            started("persister", **worker, **export) as persister,
            connected(gateway.url, pipeline.token, pipeline.device) as device,
        ):
            await device.send_until_accepted(readings(0, 3))

            async def all_is_stored() -> bool:
                return len(pipeline.stored()) == 3

            await eventually(all_is_stored, "the readings are stored")
            assert [await service.stop() for service in (gateway, persister)] == [0, 0]  # which exports what is left
    found = {span.name: (service, span) for service, span in spans}
    publish, process, insert = (
        found[name] for name in ("tidegate.readings publish", "tidegate.readings process", "insert readings")
    )
    assert [service for service, _ in (publish, process, insert)] == [
        "tidegate-gateway",
        "tidegate-persister",
        "tidegate-persister",
    ]
    assert len({span.trace_id for _, span in (publish, process, insert)}) == 1
    assert process[1].parent_span_id == publish[1].span_id
    assert insert[1].parent_span_id == process[1].span_id
    assert publish[1].start_time_unix_nano < insert[1].end_time_unix_nano <= process[1].end_time_unix_nano
    counted = {item.key: item.value.int_value for item in process[1].attributes}
    assert (counted["tidegate.readings"], counted["tidegate.stored"]) == (3, 3)


def test_without_an_endpoint_nothing_of_it_is_imported() -> None:
    output = subprocess.run(
        [sys.executable, "-c", "import sys, gateway.app, persister.app; print('\\n'.join(sys.modules))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {module.partition(".")[0] for module in output.stdout.splitlines()}
    assert "gateway" in loaded
    assert "opentelemetry" not in loaded
