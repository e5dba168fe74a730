"""Query plans, as returned by MongoDB's `explain`, of the commands that a reader sends."""

from collections.abc import Iterator
from typing import Any

from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from reader.history.from_mongodb import FromMongoDB
from readings.document import AS_MILLISECONDS
from storage.places.names import BLOCKS
from storage.places.state import STATE

Plan = dict[str, Any]


def stages(plan: Any) -> Iterator[Plan]:
    """Yield every part of a plan that names its stage."""
    if isinstance(plan, dict):
        if "stage" in plan:
            yield plan
        for part in plan.values():
            yield from stages(part)
    elif isinstance(plan, list):
        for part in plan:
            yield from stages(part)


# Scans of `_id` ranges, and stages that pass documents on. No SORT, which needs all documents first, and no COLLSCAN.
RANGES = {"IXSCAN", "CLUSTERED_IXSCAN"}
HARMLESS = {"FETCH", "LIMIT", "PROJECTION_SIMPLE", "PROJECTION_COVERED", "PROJECTION_DEFAULT"}


class Recorder(CommandListener):
    """Records each command as the driver sends it."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in ("find", "aggregate", "getMore"):
            left_out = ("lsid", "$db", "maxTimeMS", "$clusterTime", "$readPreference")
            self.commands.append({name: value for name, value in event.command.items() if name not in left_out})

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Ignored."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Ignored."""


class Explained:
    """A reader's queries, and the plans of the commands they sent."""

    def __init__(self, client: Any, name: str, recorder: Recorder) -> None:
        self.database = client[name]
        self.history = FromMongoDB(client, name, timeout_s=10)
        self.recorder = recorder

    async def plans(self) -> list[Plan]:
        """Explain the commands sent since the last call, but for reads of the state."""
        return [plan for _, plan in await self.named_plans()]

    async def named_plans(self) -> list[tuple[str, Plan]]:
        """Explain them as `plans` does, each with the name of its collection."""
        commands, self.recorder.commands = self.recorder.commands, []
        assert commands
        found: list[tuple[str, Plan]] = []
        for command in commands:
            assert command.keys() & {"find", "aggregate"}, "a getMore: a second trip for what one could bring"
            explain = {"explain": command, "verbosity": "executionStats"}
            plan = await self.database.command(explain, codec_options=AS_MILLISECONDS)
            if command.get("find") == BLOCKS and command["filter"] == {"_id": STATE}:
                assert stage_names(plan) <= {"EOF", "IDHACK", "PROJECTION_SIMPLE", "PROJECTION_DEFAULT"}
            else:
                found.append((command.get("find") or command["aggregate"], plan))
        self.recorder.commands = []
        return found

    async def plan(self) -> Plan:
        (found,) = await self.plans()
        return found


def stage_names(plan: Plan) -> set[str]:
    return {stage["stage"] for stage in stages(plan["queryPlanner"]["winningPlan"])}


def require_range(
    plan: Plan,
    returned: int,
    *,
    examined: int | None = None,
    index: str = "_id_",
) -> None:
    """Assert that a plan scans a range of `_id` (or another index), and examines only what it returns and the ends."""
    cursor = plan["stages"][0]["$cursor"] if "stages" in plan else plan
    winning = list(stages(cursor["queryPlanner"]["winningPlan"]))
    names = {stage["stage"] for stage in winning}
    assert names & RANGES, names
    assert names <= RANGES | HARMLESS, names
    for stage in winning:
        if stage["stage"] == "IXSCAN":
            assert stage["indexName"] == index
        if stage["stage"] == "CLUSTERED_IXSCAN":
            assert {"minRecord", "maxRecord"} <= stage.keys()
    stats = cursor["executionStats"]
    examined = returned if examined is None else examined
    assert stats["nReturned"] == returned
    assert stats["totalDocsExamined"] <= examined + 3, f"{stats['totalDocsExamined']} documents were examined"
    assert stats["totalKeysExamined"] <= examined + 3


def require_newest(plan: Plan, queried: int, found: int) -> None:
    """Assert that one query finds the newest reading of `queried` series by the key alone."""
    cursors = list(cursors_of(plan))
    assert len(cursors) == queried
    examined = 0
    for cursor in cursors:
        assert {stage["stage"] for stage in stages(cursor["queryPlanner"]["winningPlan"])} <= RANGES | HARMLESS
        assert {stage["stage"] for stage in stages(cursor["queryPlanner"]["winningPlan"])} & RANGES
        examined += cursor["executionStats"]["totalKeysExamined"]
        assert cursor["executionStats"]["totalDocsExamined"] <= 1 + 3
    assert examined <= found + 3 * queried


def cursors_of(plan: Any) -> Iterator[Plan]:
    """Yield every part of an `explain` result that has its own plan."""
    if isinstance(plan, dict):
        if "queryPlanner" in plan:
            yield plan
        else:
            for part in plan.values():
                yield from cursors_of(part)
    elif isinstance(plan, list):
        for part in plan:
            yield from cursors_of(part)
