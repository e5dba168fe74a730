"""Bugs to be planted, so that the simulation proves that it would find them."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from broker.interface import Delivery
from gateway.lanes import Lanes
from gateway.to_broker import OnOutcome, ToBroker
from persister.acks import AckTracker
from persister.compaction import batch
from readings.document import document_ts_ms
from storage.codec.columns import Columns, Merged, first_wins
from tests.simulation.to_mongodb import Database


def _acknowledge_before_confirm() -> tuple[Any, str, Any]:
    """Let the gateway tell its devices `accepted` when it publishes, not when the broker has confirmed."""
    report = ToBroker._report

    async def publish(self: ToBroker, entries: Any) -> None:
        report(self, entries, None)
        self._report = lambda *_: None  # type: ignore[method-assign]
        try:
            await original(self, entries)
        finally:
            del self._report

    original = ToBroker._publish
    return ToBroker, "_publish", publish


def _acknowledge_unfinished() -> tuple[Any, str, Any]:
    """Let the persister acknowledge everything before a batch that is done, also what is not written yet."""

    def done_prefix(self: AckTracker) -> list[Delivery]:
        opened = list(self._open.values())
        last = max((at for at, (_, done) in enumerate(opened) if done), default=-1)
        return [delivery for delivery, _ in opened[: last + 1]]

    return AckTracker, "_done_prefix", done_prefix


def _later_wins() -> tuple[Any, str, Any]:
    """Let the compactor keep, of two copies of an identity, the one that was sealed later."""

    def later_wins(columns: Columns) -> Merged:
        merged = first_wins(replace(columns, seals=-columns.seals))
        return Merged(replace(merged.columns, seals=-merged.columns.seals), merged.redone, merged.repeated)

    return batch, "first_wins", later_wins


def _ignore_unsafe_before_duplicate() -> tuple[Any, str, Any]:
    """Let the persister take what was stored before a duplicate for safe, though the reply says that it is not."""
    original = Database.command

    async def command(self: Database, command: Mapping[str, Any], **options: Any) -> Any:
        reply = await original(self, command, **options)
        if isinstance(reply, dict) and reply.get("writeErrors"):
            reply.pop("writeConcernError", None)
        return reply

    return Database, "command", command


def _write_without_majority() -> tuple[Any, str, Any]:
    """Let the persister insert readings with `w: 1`: their reply comes before a majority has them."""
    original = Database.command

    async def command(self: Database, command: Mapping[str, Any], **options: Any) -> Any:
        return await original(self, {**command, "writeConcern": {"w": 1}}, **options)

    return Database, "command", command


def _acknowledge_at_the_end() -> tuple[Any, str, Any]:
    """Let a consumer that ends acknowledge everything that it has, also what is not written."""
    original = AckTracker.flush_done

    async def flush_done(self: AckTracker) -> None:
        self._open = OrderedDict((tag, (delivery, True)) for tag, (delivery, _) in self._open.items())
        await original(self)

    return AckTracker, "flush_done", flush_done


def _acknowledge_without_backfill() -> tuple[Any, str, Any]:
    """Let the gateway answer an event with readings of both lanes once its live ones are confirmed."""

    def submit(self: Lanes, documents: list[bytes], on_outcome: OnOutcome, **options: Any) -> None:
        late_before_ms = options.pop("late_before_ms", None)
        live, late = documents, list[bytes]()
        if late_before_ms is not None:
            live = [one for one in documents if document_ts_ms(one) >= late_before_ms]
            late = [one for one in documents if document_ts_ms(one) < late_before_ms]
        if late:
            assert self._backfill is not None
            self._backfill.submit(late, (lambda _: None) if live else on_outcome, **options)
        if live:
            self._live.submit(live, on_outcome, **options)

    return Lanes, "submit", submit


PLANTS: dict[str, Callable[[], tuple[Any, str, Any]]] = {
    "acknowledge-before-confirm": _acknowledge_before_confirm,
    "acknowledge-unfinished-batch": _acknowledge_unfinished,
    "merge-prefers-later": _later_wins,
    "ignore-unsafe-before-duplicate": _ignore_unsafe_before_duplicate,
    "write-without-majority": _write_without_majority,
    "acknowledge-at-the-end": _acknowledge_at_the_end,
    "acknowledge-without-backfill": _acknowledge_without_backfill,
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant a bug, or none."""
    if name is None:
        yield
        return
    owner, attribute, value = PLANTS[name]()
    before = getattr(owner, attribute)
    setattr(owner, attribute, value)
    try:
        yield
    finally:
        setattr(owner, attribute, before)
