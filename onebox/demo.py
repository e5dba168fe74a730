"""The demo user of a onebox and its simulated devices, over the public interface like any other.

Where nobody may sign up, the demo user is made beside the service, as an operator makes one.
"""

import asyncio
from contextlib import suppress

import msgspec
from prometheus_client import CollectorRegistry

from auth.accounts import Accounts
from auth.cli.common import operators_database
from auth.errors import EmailTakenError
from auth.metrics import AuthMetrics
from auth.passwords import password_hasher
from auth.settings import AuthSettings
from auth.tokens.revocations import RevocationLog
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


async def make_demo_user(settings: AuthSettings, password: str) -> None:
    """Make the demo user with SIGNUP=closed, unless it is there; otherwise it signs up like anybody."""
    if settings.signup == "open":
        return
    revocations = {"access_s": settings.access_token_seconds, "device_s": settings.device_token_seconds}
    async with operators_database(settings) as database:
        with password_hasher(
            cost=settings.bcrypt_cost, threads=1, queue=1, metrics=AuthMetrics(CollectorRegistry())
        ) as passwords:
            accounts = Accounts(database, passwords, RevocationLog(database, **revocations))
            with suppress(EmailTakenError):
                user = await accounts.create(DEMO_NAME, DEMO_EMAIL, password)
                log.info("The demo user was made, for nobody may sign up.", user=user.id)


async def sign_up(url: str, password: str) -> None:
    """Sign up the demo user that the panel shows, unless it is there or was made; nobody's run ends over it."""
    body = {"name": DEMO_NAME, "email": DEMO_EMAIL, "password": password}
    async with device_session() as http:
        try:
            await Api(http, url, attempts=2).call("POST", "/user/signup", msgspec.Raw, body=body)
        except SimulatorError as error:
            if not isinstance(error, ApiError) or error.status not in (403, 409):
                log.warning("The demo user could not be signed up.", error=str(error))
