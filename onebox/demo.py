"""The demo user of a onebox and its simulated devices.

The user is created directly in the database, as an operator would do, so that it is there whether or not anyone may
sign up, and its password is hashed while the services start. The devices use the public interface like any other.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prometheus_client import CollectorRegistry

from auth.accounts import Accounts
from auth.cli.common import operators_database
from auth.errors import NoSuchUserError
from auth.metrics import AuthMetrics
from auth.passwords import password_hasher
from auth.settings import AuthSettings
from auth.tokens.revocations import RevocationLog
from onebox.run import Plan
from runtime.logs import logger
from runtime.process import Shutdown
from simulator.fleet import FleetPlan, run_fleet
from simulator.run_stats import RunStats

log = logger("onebox")

DEMO_EMAIL = "demo@tidegate.example"
DEMO_NAME = "Demo"


async def run_devices(plan: Plan, url: str, password: str, tally: RunStats, shutdown: Shutdown) -> None:
    """Run the fleet until its time is up, its file is sent, or a stop is requested; without devices, just wait."""
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
        sign_up_name=None,
    )
    await run_fleet(fleet, stats=tally, stop=shutdown.event)


@asynccontextmanager
async def demo_user(settings: AuthSettings, password: str) -> AsyncIterator["asyncio.Task[None]"]:
    """Create the demo user unless it exists, beside what is done in the context; yields the task that does it."""
    async with asyncio.TaskGroup() as tasks:
        yield tasks.create_task(_create(settings, password), name="demo user")


async def _create(settings: AuthSettings, password: str) -> None:
    revocations = {"access_s": settings.access_token_seconds, "device_s": settings.device_token_seconds}
    async with operators_database(settings) as database:
        with password_hasher(
            cost=settings.bcrypt_cost, threads=1, queue=1, metrics=AuthMetrics(CollectorRegistry())
        ) as passwords:
            accounts = Accounts(database, passwords, RevocationLog(database, **revocations))
            try:
                await accounts.find_by_email(DEMO_EMAIL)
            except NoSuchUserError:
                user = await accounts.create(DEMO_NAME, DEMO_EMAIL, password)
                log.info("The demo user was created.", user=user.id)
