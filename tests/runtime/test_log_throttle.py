"""The log throttle: one line a period, with the number of suppressed ones."""

import time

import pytest

from runtime.log_throttle import LogThrottle


def test_one_line_a_period_is_emitted_with_the_number_of_suppressed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0.0, 1.0, 9.9, 10.0, 10.1, 30.0, 31.0]
    monkeypatch.setattr(time, "monotonic", iter(times).__next__)
    throttle = LogThrottle(10.0)
    assert [throttle.should_emit() for _ in times] == [0, None, None, 2, None, 1, None]
