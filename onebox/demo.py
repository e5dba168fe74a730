"""The demo user of a onebox and its simulated devices, over the public interface like any other."""

import asyncio
from contextlib import suppress

import msgspec

from onebox.plan import Plan
from runtime.logs import logger
from runtime.process import Shutdown
from simulator.api import Api
from simulator.device import device_session
from simulator.errors import ApiError, SimulatorError
from simulator.fleet import FleetPlan, run_fleet
from simulator.tally import Tally

log = logger("onebox")

DEMO_EMAIL = "demo@tidegate.example"
DEMO_NAME = "Demo"


async def run_devices(plan: Plan, url: str, password: str, tally: Tally, shutdown: Shutdown) -> None:
    """Run the fleet until its time is up, its file is sent, or a stop is asked for; without devices, just wait."""
    if not plan.devices:
        await sign_up(url, password)
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
        sign_up_name=DEMO_NAME,
    )
    await run_fleet(fleet, tally=tally, stop=shutdown.event)


async def sign_up(url: str, password: str) -> None:
    """Make the demo user whose name and password the panel shows, unless it is there; nobody's run ends over it."""
    body = {"name": DEMO_NAME, "email": DEMO_EMAIL, "password": password}
    async with device_session() as http:
        try:
            await Api(http, url, attempts=2).call("POST", "/user/signup", msgspec.Raw, body=body)
        except SimulatorError as error:
            if not isinstance(error, ApiError) or error.status != 409:
                log.warning("The demo user could not be signed up.", error=str(error))
