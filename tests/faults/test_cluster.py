"""What is said of a fault in a cluster: what stood still, and whether it might."""

import asyncio
import random
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.faults.cluster import run
from tests.faults.cluster.faults import FAULTS, SHORT, Fault

BOUNDS = ("ACCEPTS_WITHIN_S", "ONE_DEVICE_WITHIN_S", "STORES_WITHIN_S")
LASTS_S = 0.7


class Whole:
    """Stands in for a cluster without workers."""

    persisters: tuple[()] = ()

    async def whole(self) -> None:
        return


def fleet(*last_accepted_at: float) -> Any:
    return SimpleNamespace(senders=[SimpleNamespace(last_accepted_at=at) for at in last_accepted_at])


@pytest.fixture
def injected(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Inject a fault that lasts longer than anything may stand still, with these reasons."""

    async def lasting(_: Any, __: random.Random) -> None:
        await asyncio.sleep(LASTS_S)

    async def inject(accepting: str, one_device: str, storing: str, *last_accepted_at: float) -> str:
        monkeypatch.setitem(FAULTS, "fault", Fault(lasting, accepting, one_device, storing))
        return await run.injected("fault", cast("Any", Whole()), fleet(*last_accepted_at), random.Random(1))

    for bound in BOUNDS:
        monkeypatch.setattr(run, bound, 0.1)
    return inject


@pytest.mark.parametrize(
    ("reasons", "what"),
    [(("", "y", "z"), "accepting"), (("x", "", "z"), "one device"), (("x", "y", ""), "storing")],
)
async def test_what_stands_still_without_a_reason_fails_the_scenario(
    reasons: tuple[str, str, str], what: str, injected: Any
) -> None:
    with pytest.raises(AssertionError, match=f"{what} stood still"):
        await injected(*reasons, 0.0)


async def test_a_scenario_that_may_stand_still_says_so_and_why(injected: Any) -> None:
    note = await injected("no quorum", "no quorum", "no primary", 0.0)
    assert "accepting may stand still: no quorum" in note
    assert "storing may stand still: no primary" in note


async def test_one_device_that_waits_is_noticed_among_others_that_do_not(injected: Any) -> None:
    later = time.monotonic() + 60
    with pytest.raises(AssertionError, match="one device stood still"):
        await injected("", "", "z", 0.0, later)
    await injected("", "", "z", later, later)


def test_the_short_form_has_scenarios_that_are_there() -> None:
    assert set(SHORT) <= FAULTS.keys()
    assert 3 <= len(SHORT) <= 4
