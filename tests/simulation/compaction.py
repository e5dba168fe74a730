"""Sealing and compaction: the real scan, merge, pieces and blocks on the model; sealer and lease are simulated."""

import asyncio
from functools import partial
from random import Random

from bson.datetime_ms import DatetimeMS
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from persister.collections import SAFE
from persister.compaction.batch import BatchWriter
from persister.compaction.blocks import Blocks
from persister.compaction.garbage import Garbage
from persister.compaction.heads import ChangedError, Heads
from persister.compaction.pieces import Pieces
from persister.compaction.scan import SealedScan
from readings.document import AS_MILLISECONDS
from storage.places.names import BLOCKS, COLUMNS, PIECES, sealed_name
from tests.simulation.history import History
from tests.simulation.loop import Process
from tests.simulation.mongodb import Server
from tests.simulation.to_mongodb import Client

POLL_EVERY_S = 0.5


class Sealer:
    """Seals now and then: takes a number, renames, and leaves it to the next insert to create the collection.

    The number needs a majority; the rename may come when there is none any more, and then be rolled back.
    """

    def __init__(self, mongodb: Server, history: History, random: Random) -> None:
        self._mongodb = mongodb
        self._history = history
        self._random = random
        # The last number that became a name or was given up.
        self._last = 0

    async def run(self, every_s: float) -> None:
        """Seal whenever there is a majority and not too many wait."""
        while True:
            await asyncio.sleep(every_s * (0.5 + self._random.random()))
            if not self._mongodb.has_majority:
                continue
            self._forget_missing()
            state = self._mongodb.state()
            if len(state["waiting"]) >= 4:
                continue
            number = state["highest"] + 1
            waiting = [*state["waiting"], {"number": number, "sealedAt": DatetimeMS(0), "renamed": False}]
            self._mongodb.save_state({**state, "highest": number, "waiting": waiting})
            if self._random.random() < 0.5:
                self._mongodb.seals_within_insert = partial(self._seal, number)
            await asyncio.sleep(self._random.random() * self._random.choice((0.2, 2.0)))
            self._seal(number)

    def _seal(self, number: int) -> None:
        """Rename the readings, once; if that is not possible now, the number is given up."""
        self._mongodb.seals_within_insert = None
        if sealed_name(number) in self._mongodb.collections or number <= self._last:
            return
        self._last = number
        if self._mongodb.rename(number):
            self._history.add(f"readings are sealed as {number}")
        else:
            self._forget(number)

    def _forget(self, number: int) -> None:
        state = self._mongodb.state()
        waiting = [one for one in state["waiting"] if one["number"] != number]
        self._mongodb.save_state({**state, "waiting": waiting})

    def _forget_missing(self) -> None:
        """Forget the numbers whose renames were rolled back, as a compactor does after ten minutes."""
        for one in self._mongodb.state()["waiting"]:
            if one["number"] <= self._last and sealed_name(one["number"]) not in self._mongodb.collections:
                self._forget(one["number"])


class CompactorProgram:
    """The compactor, through all its restarts; it has no saved position, so each of them begins again."""

    def __init__(self, mongodb: Server, history: History) -> None:
        self.name = "compactor"
        self._mongodb = mongodb
        self._history = history

    def start(self, process: Process) -> "asyncio.Task[None]":
        """Run in a process."""
        return process.spawn(self._run())

    def killed(self) -> None:
        """Forget nothing: everything is in MongoDB."""

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_EVERY_S)
            for one in sorted(self._mongodb.state()["waiting"], key=lambda one: one["number"]):
                name = sealed_name(one["number"])
                # In a causal session, reading waits until a majority has what was seen of the primary.
                if name not in self._mongodb.safe_collections:
                    continue
                try:
                    await self._compact(name, one["number"])
                except (PyMongoError, ChangedError) as error:
                    self._history.add(f"does not compact {name}:", repr(error))
                break

    async def _compact(self, name: str, number: int) -> None:
        database = Client(self._mongodb)["tidegate"]
        options = {"codec_options": AS_MILLISECONDS, "write_concern": SAFE, "read_concern": ReadConcern("majority")}
        heads, columns, small = (database.get_collection(one, **options) for one in (BLOCKS, COLUMNS, PIECES))
        reads = Heads(heads)
        writes = Blocks(heads, columns, _step)
        garbage = Garbage(heads, columns, writes, reads)
        writer = BatchWriter(writes, reads, Pieces(small), garbage, _step)
        scan = SealedScan(database.get_collection(name, **options), number, None)
        self._mongodb.save_state({**self._mongodb.state(), "blocks": True})
        while chunks := await scan.next_batch():
            await writer.write(chunks)
        await database.command({"drop": name})
        state = self._mongodb.state()
        waiting = [one for one in state["waiting"] if one["number"] != number]
        self._mongodb.save_state({**state, "waiting": waiting})
        self._history.add(f"has compacted {name}")


async def _step(_: str) -> None:
    """Let a crash come here."""
    await asyncio.sleep(0)
