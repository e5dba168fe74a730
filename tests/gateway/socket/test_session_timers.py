"""Session timers: cheap to poll, and bounded by the sessions that are open."""

import time

from gateway.socket.session_timers import SessionTimers


def test_checking_100_000_sessions_of_which_none_is_due_costs_next_to_nothing() -> None:
    expired: list[tuple[str, bool]] = []
    timers = SessionTimers(60, lambda sid, over: expired.append((sid, over)))
    for number in range(100_000):
        timers.schedule(f"s{number}", round(time.time() + 3600 + number % 1000))
    started = time.process_time()
    for _ in range(100):
        assert timers.run_due() == 0
    assert time.process_time() - started < 0.1, "one poll takes less than a millisecond"
    assert expired == []


def test_sessions_that_come_and_go_for_a_month_leave_nothing_behind() -> None:
    timers = SessionTimers(60, lambda _sid, _over: None)
    for number in range(50_000):
        timers.schedule(f"s{number}", round(time.time() + 30 * 86400))
        timers.schedule(f"s{number}", round(time.time() + 30 * 86400))
        timers.cancel(f"s{number}")
    assert (len(timers), len(timers._heap) <= 2000) == (0, True)
