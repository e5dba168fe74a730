"""Fleet plans against a fake Tidegate."""

from typing import Any

from simulator.fleet import FleetPlan
from tests.simulator.fake_tidegate import FakeTidegate


def fleet_plan(tidegate: FakeTidegate, **options: Any) -> FleetPlan:
    """Return a plan of a user of the fake Tidegate."""
    return FleetPlan(url=tidegate.url, email="a@b.example", password="correct horse", **options)
