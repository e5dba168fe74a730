"""Acknowledgement latency at half of saturation, compared to a bare confirmed publish of the same messages."""

import re
import sys
import urllib.request
from statistics import median

from bench.environment import Environment, Peer
from bench.processes import BenchError, LineProcess
from bench.readings import compact, reading
from bench.report import Figure, progress
from readings.document import encode_document
from readings.reading import Defaults, check_one

CONFIRMED = re.compile(rb'^tidegate_gateway_messages_total\{outcome="confirmed"\} ([\d.e+]+)$', re.MULTILINE)


def latency(environment: Environment, gateway: Peer, rate: float, rounds: int, seconds: float) -> list[Figure]:
    """Measure both, alternating, at `rate` events of one reading per second."""
    progress(f"acknowledgement at {rate:,.0f} readings/s, one an event")
    command = [sys.executable, "-m", "bench.bare_publish", environment.rabbitmq.create_vhost()]
    ours, bare = [], []
    with LineProcess(command, log=environment.folder / "bare.log") as publisher:
        publisher.request({"run": 0.2, "rate": 100, "bytes": 1000})
        for round_number in range(rounds):
            before = confirmed(gateway)
            ran = gateway.load.request({"run": seconds, "size": 1, "inFlight": 0, "rate": rate})
            messages = confirmed(gateway) - before
            if ran["refused"] or ran["unanswered"] or not messages:
                raise BenchError(f"the gateway did not accept everything: {ran}")
            environment.empty_queue()
            readings_each = ran["acknowledged"] / messages
            size = round(readings_each * document_bytes())
            publish = {"run": seconds, "rate": messages / ran["seconds"], "bytes": size}
            found = publisher.request(publish)
            ours.append(ran["p99Ms"])
            bare.append(found["p99Ms"])
            progress(
                f"  {round_number + 1}/{rounds} acknowledged p50 {ran['p50Ms']:.1f} p99 {ran['p99Ms']:.1f} ms; "
                f"bare p50 {found['p50Ms']:.1f} p99 {found['p99Ms']:.1f} ms, {publish['rate']:.0f} msg/s of {size} B"
            )
    return [
        Figure("acknowledgement at half of saturation: p99", median(ours), "ms"),
        Figure("bare confirmed publish: p99", median(bare), "ms"),
        Figure("  of the bare publish's p99", median(ours) / median(bare), "x", 3),
    ]


def confirmed(gateway: Peer) -> float:
    """Return the number of messages the gateway has published, from its own metric."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.ops_port}/metrics", timeout=10) as answer:
        found = CONFIRMED.search(answer.read())
    return float(found[1]) if found else 0.0


def document_bytes() -> int:
    """Return the size of one of the bench's readings on the broker, in bytes."""
    now_ms = 1_750_000_000_000
    return len(encode_document("owner-0", "device-10", check_one(compact(reading(1, now_ms)), Defaults(), now_ms)))
