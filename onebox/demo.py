"""The simulated devices of a onebox: a fleet of the demo user, over the public interface like any other."""

import asyncio
from contextlib import suppress

from onebox.plan import Plan
from runtime.process import Shutdown
from simulator.fleet import FleetPlan, run_fleet
from simulator.tally import Tally

DEMO_EMAIL = "demo@tidegate.example"


async def run_devices(plan: Plan, url: str, password: str, tally: Tally, shutdown: Shutdown) -> None:
    """Run the fleet until its time is up, its file is sent, or a stop is asked for; without devices, just wait."""
    if not plan.devices:
        with suppress(TimeoutError):
            async with asyncio.timeout(plan.seconds):
                await shutdown.wait()
        return
    fleet = FleetPlan(
        url=url,
        email=DEMO_EMAIL,
        password=password,
        devices=plan.devices,
        rate=plan.rate,
        seconds=plan.seconds,
        replay=plan.replay,
        sign_up_name="Demo",
    )
    await run_fleet(fleet, tally=tally, stop=shutdown.event)
