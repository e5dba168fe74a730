"""What is done to a store on the disk: power cuts, failed syncs, a slow minute; and the account of each."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.power.disk import ForgetfulDisk
from tests.power.stores import Store, Writing

FIRST_WRITE_WITHIN_S = 60.0
LONGEST_S = 2.0  # of writing before a cut
EVERY_SYNC, DYING_S = 10**9, 1.0


@dataclass
class Account:
    """What became of the numbers of one store."""

    name: str
    cuts: int = 0
    sent: int = 0
    acknowledged: int = 0
    lost: int = 0
    twice: int = 0
    foreign: int = 0
    slowest_start_s: float = 0.0
    recovered_s: float | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Nothing is lost, stored twice or invented, and something was at stake."""
        return not (self.lost or self.twice or self.foreign or self.failures) and self.acknowledged > 0


class Proof:
    """One store on one disk, and the numbers that it was sent in all rounds."""

    def __init__(self, name: str, store: Store, disk: ForgetfulDisk, rng: random.Random, logs: Path) -> None:
        self.store, self.disk, self.rng = store, disk, rng
        self.account = Account(name)
        self._errors = logs / f"{name}.writer.log"
        self._sent: set[int] = set()
        self._first = 1
        self._writing: Writing | None = None

    def end(self) -> None:
        """End the store, and the writer of a scenario that did not come to its end."""
        self.store.end()
        if self._writing is not None:
            self._writing.end()

    def writing(self) -> Writing:
        """Let numbers be written; returns once one is acknowledged."""
        self._writing = writing = Writing(self.store.writer, self.store.url, self._first, self._errors)
        if not _within(lambda: bool(writing.acknowledged), FIRST_WRITE_WITHIN_S):
            writing.end()
            errors = self._errors.read_text(errors="replace")[-500:]
            raise TimeoutError(f"nothing was acknowledged in {FIRST_WRITE_WITHIN_S:g} s: {errors}")
        return writing

    def cut(self, writing: Writing) -> None:
        """Kill the store, cut the power, start it on what is left and account for the numbers of this round."""
        self.store.kill(writing)
        self.account.cuts += 1
        seed = self.rng.randrange(2**32)
        # Every fifth cut keeps nothing that was not synced. If the disk ignores syncs, any other leaves a torn heap.
        self.disk.cut(None if self.disk.ignores_syncs or seed % 5 == 0 else seed)
        self._start_and_count(writing)

    def kill(self, writing: Writing) -> None:
        """The same, but the power stays."""
        self.store.kill(writing)
        self._start_and_count(writing)

    def _start_and_count(self, writing: Writing) -> None:
        began = time.monotonic()
        self.store.start()
        found = self.store.numbers()
        account = self.account
        account.slowest_start_s = max(account.slowest_start_s, time.monotonic() - began)
        self._sent |= writing.sent
        self._first = max(self._sent) + 1
        account.sent += len(writing.sent)
        account.acknowledged += len(writing.acknowledged)
        account.lost += len(writing.acknowledged.keys() - set(found))
        account.twice += len(found) - len(set(found))
        account.foreign += len(set(found) - self._sent)


def power_cuts(proof: Proof, cuts: int) -> None:
    """Cut the power at random moments while numbers are written."""
    for _ in range(cuts):
        writing = proof.writing()
        time.sleep(proof.rng.uniform(0, LONGEST_S))
        proof.cut(writing)


def failed_sync(proof: Proof, *, then_cut: bool = True) -> None:
    """Let one sync fail with EIO; a server that ends itself is started again, as its supervisor would. Then a cut.

    Without a cut it is killed: MariaDB reads its log from the cache when it starts again, and does not write it anew.
    """
    writing = proof.writing()
    time.sleep(0.5)
    failed = _failed_at(proof, 1)
    if not _within(lambda: _accepts(proof, writing, failed), FIRST_WRITE_WITHIN_S):
        proof.account.failures.append("nothing was acknowledged after the failed sync")
    proof.account.recovered_s = time.monotonic() - failed
    (proof.cut if then_cut else proof.kill)(writing)


def dying_disk(proof: Proof) -> None:
    """Let each sync fail from now on, then cut the power: what was acknowledged meanwhile is lost.

    Behind one failed sync the next makes up for it in some stores, and who took the failed one for done is not seen.
    """
    writing = proof.writing()
    time.sleep(0.5)
    _failed_at(proof, EVERY_SYNC)
    time.sleep(DYING_S)
    proof.cut(writing)


def _failed_at(proof: Proof, times: int) -> float:
    """Let the next syncs fail; return when the first of them has."""
    proof.disk.fail(times)
    if not _within(lambda: proof.disk.syncs()[1] > 0, 70):  # MongoDB's checkpoints come once a minute
        proof.account.failures.append("no sync failed")
    return time.monotonic()


def _accepts(proof: Proof, writing: Writing, since: float) -> bool:
    """Whether a number that was sent after this time is acknowledged; starts a server that has ended."""
    if proof.store.ended_itself:
        proof.store.start()
    return any(at - took > since for at, took in list(writing.acknowledged.values()))


def slow_disk(proof: Proof, delay_s: float, seconds: float, recovers_within_s: float) -> None:
    """Let every sync take long for a while: the time of an acknowledgement is back soon after. Then a cut."""
    writing = proof.writing()
    time.sleep(5)
    usual = _p99(writing, 0)
    proof.disk.delay_syncs(delay_s)
    time.sleep(seconds)
    proof.disk.delay_syncs(0)
    ended = time.monotonic()
    # Back is what it was, with room for a busy machine, and far from a slow sync.
    back_s = min(max(2 * usual, 0.1), delay_s / 2)
    if not _within(lambda: 0 < _p99(writing, time.monotonic() - 1) <= back_s, recovers_within_s):
        proof.account.failures.append(f"p99 not back at {back_s:.3f} s within {recovers_within_s:g} s")
    proof.account.recovered_s = time.monotonic() - ended
    proof.cut(writing)


def _p99(writing: Writing, since: float) -> float:
    """Return the 99th percentile of what acknowledgements took since a time, 0 if there were none."""
    times = sorted(took for at, took in list(writing.acknowledged.values()) if at >= since)
    return times[int(len(times) * 0.99)] if times else 0.0


def _within(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether the condition holds within this time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
