"""Readers find what a model in memory says, whatever moves meanwhile: real sealers, compactors, erasure, retention."""

import random
from collections import Counter

from prometheus_client import CollectorRegistry

from broker.failpoints import Point
from persister.compaction.compactor import Compactor
from persister.compaction.metrics import CompactorMetrics
from readings.document import id_bytes
from readings.filters import of_owner
from storage.places.names import BLOCKS, COLUMNS, PIECES
from tests.persister.compaction.answers import Answers, Sensors
from tests.persister.compaction.stage import Stage
from tests.persister.compaction.world import compact_with

ROUNDS = 10


class Killed(Exception):
    """Stands for the end of the process."""


class Interruptions:
    """Checks answers at random steps of compactors, and ends some of them there."""

    def __init__(self, stage: Stage, sensors: Sensors, dice: random.Random) -> None:
        self._stage = stage
        self._sensors = sensors
        self._dice = dice
        self.answers = Answers(stage.places, dice)
        self.passed: Counter[str] = Counter()
        self.deaths = 0

    async def step(self, at: Point) -> None:
        self.passed[at] += 1
        if self._dice.random() < 0.1:
            await self.check()
        if self._dice.random() < 0.03:
            self.deaths += 1
            raise Killed

    async def check(self, series: int = 2) -> None:
        for name in self._dice.sample(self._sensors.names, series):
            await self.answers.check(name, self._stage.expected(name))

    async def compact(self) -> None:
        try:
            await self._stage.compact(self.step)
        except Killed:
            await self._stage.expire_lease()


async def test_every_answer_is_what_the_model_says_also_in_the_middle_of_merges(stage: Stage, seed: int) -> None:
    dice = random.Random(seed)
    sensors = Sensors(dice)
    during = Interruptions(stage, sensors, dice)
    for number in range(ROUNDS):
        for _ in range(dice.choice([1, 1, 2])):
            await stage.write(sensors.batch())
            await stage.sealer.seal(force=True)
        await stage.write(sensors.batch(8))
        await during.compact()
        if number == ROUNDS // 2:
            await stage.enforce_retention(sensors)
            during.answers.forget()
        if number == ROUNDS - 4:
            await stage.erase("owner-0")
            during.answers.forget()
        await during.check()
    await stage.compact()
    await during.check(len(sensors.names))
    assert await stage.garbage() == (0, 0)
    for collection in (PIECES, BLOCKS, COLUMNS):
        assert await stage.database[collection].count_documents(of_owner("owner-0")) == 0
    assert during.deaths > 1
    assert during.passed["compactor.head_replaced"] > 10, "too few blocks were changed for a test"


async def test_repeats_that_were_counted_and_copies_that_are_left_are_all_that_were_sent_again(
    stage: Stage, seed: int
) -> None:
    sensors, registry = Sensors(random.Random(seed)), CollectorRegistry()
    compactor = Compactor(stage.database, CompactorMetrics(registry), cores=1000)
    repeats = 0
    for _ in range(10):
        batch = {id_bytes(one): one for one in sensors.batch()}
        repeats += len(batch.keys() & stage.model.keys())
        await stage.write(list(batch.values()))
        await stage.sealer.seal(force=True)
        await compact_with(compactor)
    counted = registry.get_sample_value("tidegate_compactor_repeats_total")
    left = sum(len(by_seal) - 1 for by_seal in (await stage.copies()).values())
    assert counted == compactor.totals.repeats
    assert counted + left == repeats
    assert counted > 10, "too few for a test"
