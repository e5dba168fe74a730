"""A stand-in for the service that has the rules."""

from broker.alarms import Watch, Watches, encode_watches
from persister.watched import WatchedSeries


class Alarms:
    """Answers a persister that follows its list as it is told to."""

    def __init__(self) -> None:
        self.answer: Watches | Exception | bytes = Watches([], "0", whole=True)
        self.asked: list[str | None] = []
        self.watched = WatchedSeries(self.fetch)

    async def fetch(self, since: str | None) -> bytes:
        self.asked.append(since)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer if isinstance(self.answer, bytes) else encode_watches(self.answer)

    async def says(self, *items: Watch, cursor: str = "1", whole: bool = False) -> None:
        self.answer = Watches(list(items), cursor, whole)
        await self.watched.poll()
