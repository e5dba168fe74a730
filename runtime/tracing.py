"""Traces with OpenTelemetry, for those who set OTEL_EXPORTER_OTLP_ENDPOINT. Without it nothing of it is imported.

The SDK reads its own variables (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/):
OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG say how many messages are followed, OTEL_SERVICE_NAME what the process
is called. The context travels as `traceparent` (W3C Trace Context) in the headers of a message.
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from runtime.logs import logger

log = logger("runtime.tracing")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CONTEXT_HEADER = "traceparent"
EXPORT_TIMEOUT_S = 2
LAST_TRACES_S = 2.0

Kind = Literal["PRODUCER", "CONSUMER", "CLIENT", "INTERNAL"]
Attributes = Mapping[str, str | int | float]


class Span:
    """One step of a trace. Times are nanoseconds since 1970."""

    def __init__(self, span: Any, headers: dict[str, str]) -> None:
        self._span = span
        # What goes along so that the next step belongs to the same trace; empty where this one is not followed.
        self.headers = headers

    def end(self, at_ns: int | None = None, *, error: BaseException | None = None) -> None:
        """Close the step, with what went wrong in it."""
        if error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(_status(str(error)))
        self._span.end(at_ns)


class Tracing:
    """Makes spans of one process."""

    def __init__(self, tracer: Any) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - only where traces are wanted
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._tracer = tracer
        self._kinds: Any = SpanKind
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        parent: Mapping[str, Any] | None = None,
        at_ns: int | None = None,
    ) -> Span:
        """Begin a step; `parent` holds the headers of the step before, if there was one."""
        context = None if parent is None else self._propagator.extract(_texts(parent))
        at_ns = time.time_ns() if at_ns is None else at_ns
        span = self._tracer.start_span(
            name, context, kind=getattr(self._kinds, kind), attributes=dict(attributes), start_time=at_ns
        )
        headers: dict[str, str] = {}
        if span.is_recording():
            from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - as above

            self._propagator.inject(headers, set_span_in_context(span))
        return Span(span, headers)


@asynccontextmanager
async def open_tracing(service: str) -> AsyncIterator[Tracing | None]:
    """Give what makes spans, as long as the context lasts; None where no endpoint is set."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        yield None
        return
    provider = _provider(service)
    log.info("Traces are exported.", service=service)
    try:
        yield Tracing(provider.get_tracer("tidegate"))
    finally:
        await _shut_down(provider)


async def _shut_down(provider: Any) -> None:
    """Send what is left, but let no collector that hangs keep the process: the package's own deadlines are not kept."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # nobody has waited for so long
            loop.call_soon_threadsafe(done.set)

    # No executor's thread: the process would wait for it.
    threading.Thread(target=shut_down, name="last traces", daemon=True).start()
    try:
        async with asyncio.timeout(LAST_TRACES_S):
            await done.wait()
    except TimeoutError:
        log.warning("The last traces could not be sent in time.", seconds=LAST_TRACES_S)


def _provider(service: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeError(f"traces need the packages of requirements/tracing.txt: {error}") from error
    name = os.environ.get("OTEL_SERVICE_NAME") or f"tidegate-{service}"
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S)))
    return provider


def _texts(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if isinstance(value, str)}


def _status(description: str) -> Any:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - only where traces are wanted

    return Status(StatusCode.ERROR, description)
