"""How long a device waits at half of saturation, beside a bare confirmed publish of as many messages of that size."""

import re
import sys
import urllib.request
from statistics import median

from bench.processes import BenchError, Speaking
from bench.readings import compact, reading
from bench.report import Figure, progress
from bench.stage import Peer, Stage
from readings.document import encode_document
from readings.reading import Defaults, check_one

CONFIRMED = re.compile(rb'^tidegate_gateway_messages_total\{outcome="confirmed"\} ([\d.e+]+)$', re.MULTILINE)


def latency(on: Stage, gateway: Peer, rate: float, rounds: int, seconds: float) -> list[Figure]:
    """Measure both in turns at `rate` readings a second, one an event."""
    progress(f"acknowledgement at {rate:,.0f} readings/s, one an event")
    command = [sys.executable, "-m", "bench.bare_publish", on.rabbitmq.create_vhost()]
    ours, bare = [], []
    with Speaking(command, log=on.folder / "bare.log") as publisher:
        publisher.ask({"run": 0.2, "rate": 100, "bytes": 1000})
        for turn in range(rounds):
            before = confirmed(gateway)
            ran = gateway.load.ask({"run": seconds, "size": 1, "inFlight": 0, "rate": rate})
            messages = confirmed(gateway) - before
            if ran["refused"] or ran["unanswered"] or not messages:
                raise BenchError(f"the gateway did not accept everything: {ran}")
            on.empty_queue()
            readings_each = ran["acknowledged"] / messages
            size = round(readings_each * document_bytes())
            asked = {"run": seconds, "rate": messages / ran["seconds"], "bytes": size}
            found = publisher.ask(asked)
            ours.append(ran["p99Ms"])
            bare.append(found["p99Ms"])
            progress(
                f"  {turn + 1}/{rounds} acknowledged p50 {ran['p50Ms']:.1f} p99 {ran['p99Ms']:.1f} ms; bare p50 "
                f"{found['p50Ms']:.1f} p99 {found['p99Ms']:.1f} ms, {asked['rate']:.0f} messages/s of {size} B"
            )
    return [
        Figure("acknowledgement at half of saturation: p99", median(ours), "ms"),
        Figure("bare confirmed publish: p99", median(bare), "ms"),
        Figure("  of the bare publish's p99", median(ours) / median(bare), "x", 3),
    ]


def confirmed(gateway: Peer) -> float:
    """Return how many messages the gateway has published, by its own count."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.ops_port}/metrics", timeout=10) as answer:
        found = CONFIRMED.search(answer.read())
    return float(found[1]) if found else 0.0


def document_bytes() -> int:
    """Return how many bytes one of the bench's readings has on the broker."""
    now_ms = 1_750_000_000_000
    return len(encode_document("owner-0", "device-10", check_one(compact(reading(1, now_ms)), Defaults(), now_ms)))
