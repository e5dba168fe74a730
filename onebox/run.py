"""One run of a onebox: its plan, decoded from the command line, and its summary, for programs and for people."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from simulator.replay.file import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a run. `rate` is in readings a second and device; without `seconds` it runs until it is stopped."""

    host: str
    port: int
    data: Path
    devices: int
    rate: float
    replay: Replay | None
    seconds: float | None
    json: bool

    @property
    def queue(self) -> Path:
        """The file of the queue."""
        return self.data / "queue.sqlite3"

    @property
    def queue_url(self) -> str:
        """The queue as a `BROKER_URL`."""
        return f"embedded://{self.queue}"

    @property
    def users_url(self) -> str:
        """The users' database as an `AUTH_DATABASE_URL`."""
        return f"sqlite+aiosqlite:///{self.data / 'users.sqlite3'}"


class Summary(msgspec.Struct, frozen=True, rename="camel"):
    """The result of a run; latencies are milliseconds.

    `sent` and `acked` count distinct readings of the simulated devices, `stored` and `duplicates` the readings of this
    run. `lost` counts readings that were acknowledged but are neither in MongoDB nor among the dead letters.
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
        """Return the summary as one line of JSON."""
        return msgspec.json.encode(self).decode() + "\n"

    def text(self) -> str:
        """Return the summary as text for people."""
        verdict = "nothing was lost" if self.lost == 0 else f"{self.lost} READINGS WERE LOST"
        return (
            f"{self.sent:,} readings sent in {self.seconds:.1f} s ({self.readings_per_second:,.0f} a second)\n"
            f"{self.acked:,} acknowledged, p50 {self.ack_p50_ms:.1f} ms, p99 {self.ack_p99_ms:.1f} ms\n"
            f"{self.stored:,} stored, {self.duplicates:,} were stored already, {self.rejected:,} rejected: {verdict}\n"
        )
