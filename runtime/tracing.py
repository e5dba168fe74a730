"""OpenTelemetry traces, if OTEL_EXPORTER_OTLP_ENDPOINT is set; otherwise the SDK is not even imported.

The SDK reads its own variables (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/):
OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG set how many messages are traced, OTEL_SERVICE_NAME names the process.
The context travels as `traceparent` (W3C Trace Context) in message headers.
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
SHUTDOWN_TIMEOUT_S = 2.0

Kind = Literal["PRODUCER", "CONSUMER", "CLIENT", "INTERNAL"]
Attributes = Mapping[str, str | int | float]


class Span:
    """A span of a trace. Times are nanoseconds since 1970."""

    def __init__(self, span: Any, headers: dict[str, str]) -> None:
        self._span = span
        # Message headers that make the next span part of this trace; empty if this one is not sampled.
        self.headers = headers

    def end(self, at_ns: int | None = None, *, error: BaseException | None = None) -> None:
        """End the span, recording the error if there was one."""
        if error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(_status(str(error)))
        self._span.end(at_ns)


class Tracing:
    """Starts the spans of one process."""

    def __init__(self, tracer: Any) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - only if tracing is on
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
        """Start a span; `parent` holds the headers of the previous one, if there is one."""
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
    """Yield what starts spans, or None if no endpoint is set; export the last spans on exit."""
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
    """Export the last spans, but never wait for a hanging collector: the SDK does not keep its own deadlines."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # the loop is closed: the wait was over earlier
            loop.call_soon_threadsafe(done.set)

    # Not an executor's thread, which the process would wait for at exit.
    threading.Thread(target=shut_down, name="last traces", daemon=True).start()
    try:
        async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
            await done.wait()
    except TimeoutError:
        log.warning("The last traces could not be sent in time.", seconds=SHUTDOWN_TIMEOUT_S)


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
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - only if tracing is on

    return Status(StatusCode.ERROR, description)
