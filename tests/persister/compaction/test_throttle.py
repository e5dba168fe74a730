"""The share of the machine that compaction takes."""

import time

import pytest

from persister.compaction.throttle import WITH_MONGODB, Throttle


class Clocks:
    """Time and processor time, as a test sets them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = self.cpu = 100.0
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(time, "process_time", lambda: self.cpu)

    def work(self, cpu_s: float, wall_s: float) -> None:
        self.cpu += cpu_s
        self.now += wall_s


@pytest.mark.parametrize("cores", [0.1, 0.5, 2])
def test_steps_and_their_share_of_mongodb_take_so_many_cores(cores: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)
    throttled, started = Throttle(cores), clocks.now
    for _ in range(200):
        throttled.start()
        clocks.work(0.1, 0.15)
        clocks.now += throttled.pause_s()
    used = 200 * 0.1 * WITH_MONGODB
    # A step takes more time than its share where it may take two cores.
    assert used / (clocks.now - started) == pytest.approx(min(cores, 0.1 * WITH_MONGODB / 0.15), rel=0.05)


def test_what_the_process_does_beside_steps_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)
    throttled = Throttle(0.5)
    pauses = []
    for _ in range(20):
        throttled.start()
        clocks.work(0.1, 0.1)
        pauses.append(throttled.pause_s())
        clocks.work(pauses[-1], pauses[-1])  # a gateway that takes a whole core
    assert max(pauses[-5:]) == pytest.approx(0.1 * WITH_MONGODB / 0.5 - 0.1)


def test_idle_time_is_saved_up_for_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)
    throttled = Throttle(0.5)
    clocks.now += 3600
    throttled.start()
    clocks.work(1, 1)
    assert throttled.pause_s() == pytest.approx(1 * WITH_MONGODB / 0.5 - 1 - 1)
