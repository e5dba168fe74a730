"""When goodput is back after an overload, and what holds."""

from tests.soak.oracle import Outcome
from tests.soak.overload import OverloadVerdict, Phase


def second(
    acknowledged: int, *, offered: int = 500, p99: float = 0.1, connects: int = 0, retried: int = 0
) -> dict[str, float]:
    return {
        "offered": offered,
        "dropped": 0,
        "acknowledged": acknowledged,
        "retried": retried,
        "connects": connects,
        "p99": p99,
    }


def returned(*seconds: dict[str, float]) -> float | None:
    return Phase(500, list(seconds)).returned_s()


def test_goodput_is_back_with_the_first_window_of_good_seconds() -> None:
    assert returned(*[second(100)] * 4, *[second(500)] * 6) == 7


def test_goodput_that_falls_again_was_not_back() -> None:
    assert returned(*[second(500)] * 5, *[second(0)] * 3, *[second(500)] * 4) == 11
    assert returned(*[second(500)] * 5, *[second(0)] * 3) is None


def test_answers_that_take_long_are_not_goodput() -> None:
    assert returned(*[second(500, p99=3)] * 4, *[second(500)] * 4) == 5


def verdict(over: Phase, under: Phase, counts: dict[str, int] | None = None, size: int = 10**8) -> OverloadVerdict:
    found = {"sent": 9, "acknowledged": 9, "stored": 9, "lost": 0, "duplicated": 0, "foreign": 0} | (counts or {})
    return OverloadVerdict(10, 500, over, under, 1.0, {"gateway": size}, Outcome(found, 0, 0), [])


def test_each_thing_that_was_asked_can_fail_an_overload() -> None:
    over, under = Phase(1000, [second(500, offered=1000)] * 5), Phase(250, [second(250, offered=250)] * 9)
    assert verdict(over, under).holds
    assert not verdict(Phase(1000, [second(500, offered=600)] * 5), under).holds
    assert not verdict(Phase(1000, [second(990, offered=1000)] * 5), under).holds
    assert not verdict(over, Phase(250, [second(50, offered=250)] * 9)).holds
    assert not verdict(Phase(1000, [second(500, offered=1000, connects=3)] * 5), under).holds
    assert not verdict(Phase(1000, [second(500, offered=1000, retried=700)] * 5), under).holds
    assert not verdict(over, under, {"lost": 1}).holds
    assert not verdict(over, under, {"duplicated": 1}).holds
    assert not verdict(over, under, size=10**9).holds


def test_an_overload_that_was_ended_before_it_began_does_not_hold() -> None:
    nothing = Phase(0, [second(0, offered=0)] * 3)
    assert nothing.returned_s() is None
    assert not verdict(nothing, nothing).holds
