"""The summary of a run: one JSON object for programs, a few lines for people."""

import msgspec


class Summary(msgspec.Struct, frozen=True, rename="camel"):
    """`sent`, `acked`: distinct readings of the simulated devices. `stored`, `duplicates`: of this run's readings.

    `lost`: acknowledged, but neither in MongoDB nor among the dead letters. Latencies are milliseconds.
    """

    sent: int
    acked: int
    accepted: int
    rejected: int
    stored: int
    duplicates: int
    lost: int
    ack_p50_ms: float = msgspec.field(name="ackP50Ms")
    ack_p99_ms: float = msgspec.field(name="ackP99Ms")
    seconds: float
    readings_per_second: float

    def json(self) -> str:
        """Return the object as one line."""
        return msgspec.json.encode(self).decode() + "\n"

    def text(self) -> str:
        """Return the same for people."""
        verdict = "nothing was lost" if self.lost == 0 else f"{self.lost} READINGS WERE LOST"
        return (
            f"{self.sent:,} readings sent in {self.seconds:.1f} s ({self.readings_per_second:,.0f} a second)\n"
            f"{self.acked:,} acknowledged, p50 {self.ack_p50_ms:.1f} ms, p99 {self.ack_p99_ms:.1f} ms\n"
            f"{self.stored:,} stored, {self.duplicates:,} were stored already, {self.rejected:,} rejected: {verdict}\n"
        )
