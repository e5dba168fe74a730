"""What one run of a onebox is to do: the command line, decoded."""

from dataclasses import dataclass
from pathlib import Path

from simulator.replay.file import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run is to do."""

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
        """The same as `BROKER_URL` names it."""
        return f"embedded://{self.queue}"

    @property
    def users_url(self) -> str:
        """The users' database as `AUTH_DATABASE_URL` names it."""
        return f"sqlite+aiosqlite:///{self.data / 'users.sqlite3'}"
