"""The demo user of a onebox and its simulated devices, which use the public interface like any other.

With SIGNUP=closed, the demo user is created directly in the database, as an operator would do.
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
from onebox.run import Plan
from runtime.logs import logger
from runtime.process import Shutdown
from simulator.api import Api
from simulator.device import device_session
from simulator.errors import ApiError, SimulatorError
from simulator.fleet import FleetPlan, run_fleet
from simulator.replay.report import print_report
from simulator.run_stats import RunStats

log = logger("onebox")

DEMO_EMAIL = "demo@tidegate.example"
DEMO_NAME = "Demo"


async def run_devices(plan: Plan, url: str, password: str, tally: RunStats, shutdown: Shutdown) -> None:
    """Run the fleet until its time is up, its file is sent, or a stop is requested; without devices, just wait."""
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
    await run_fleet(fleet, stats=tally, stop=shutdown.event, on_survey=print_report)


async def create_demo_user(settings: AuthSettings, password: str) -> None:
    """With SIGNUP=closed, create the demo user unless it exists; otherwise it signs up like any other."""
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
                log.info("Sign-up is closed: the demo user was created directly.", user=user.id)


async def sign_up(url: str, password: str) -> None:
    """Sign up the demo user that the panel shows, unless it exists; a failure is logged and does not end the run."""
    body = {"name": DEMO_NAME, "email": DEMO_EMAIL, "password": password}
    async with device_session() as http:
        try:
            await Api(http, url, attempts=2).call("POST", "/user/signup", msgspec.Raw, body=body)
        except SimulatorError as error:
            if not isinstance(error, ApiError) or error.status not in (403, 409):
                log.warning("The demo user could not be signed up.", error=str(error))
