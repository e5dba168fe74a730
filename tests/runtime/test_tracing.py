"""Traces with a collector that is away or hangs: the process still ends in time."""

import socket
import time

import pytest

from runtime.tracing import open_tracing

STOPS_WITHIN_S = 5.0


async def leaving_takes_s(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> float:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    async with open_tracing("test") as tracing:
        assert tracing is not None
        for _ in range(2000):
            tracing.begin("step", "INTERNAL", {}).end()
        started = time.monotonic()
    return time.monotonic() - started


async def test_a_collector_that_never_answers_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel lets it connect, and nobody accepts
        port = server.getsockname()[1]
        assert await leaving_takes_s(monkeypatch, f"http://127.0.0.1:{port}") < STOPS_WITHIN_S


async def test_a_collector_that_is_not_there_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    assert await leaving_takes_s(monkeypatch, f"http://127.0.0.1:{unused_tcp_port}") < STOPS_WITHIN_S
