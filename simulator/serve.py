"""HTTP → DEVICES: `/simulator/devices` starts, lists and stops simulated devices for the calling user."""

import asyncio
from typing import Annotated

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from access.bearer import required_token
from readings.place import Place
from runtime.http.bodies import json_response, read_json
from runtime.http.fields import ONE_LINE, ONE_LINE_RULE
from runtime.http.listen import listen
from runtime.http.ops import Check, ops_server
from runtime.http.problems import Problem, problem_middleware
from runtime.http.wording import rule
from runtime.logs import logger
from runtime.process import Shutdown
from simulator.account import NewDevice, Owner
from simulator.api import Api
from simulator.device import device_session
from simulator.device_pool import DevicePool, PoolFullError, RunningDevice
from simulator.errors import ApiError, UnavailableError
from simulator.metrics import SimulatorMetrics
from simulator.settings import SimulatorSettings

log = logger("simulator")

MAX_RATE = 1000.0
FULL_RETRY_S = 30
_NAME = r"^[A-Za-z0-9_.:-]+$(?!\n)"
_NAME_RULE = rule("made of A-Z a-z 0-9 _ . : - only")


class StartDevice(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Body of `POST /simulator/devices`; `rate` is in readings per second. The target validates the rest."""

    sensor_type: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_NAME, extra=_NAME_RULE)]
    location: Annotated[str, msgspec.Meta(max_length=256, pattern=ONE_LINE, extra=ONE_LINE_RULE)] | Place
    rate: Annotated[float, msgspec.Meta(gt=0, le=MAX_RATE)] = 1.0


class SimulatedDevice(msgspec.Struct, rename="camel"):
    """A running device, as its owner sees it."""

    id: str
    name: str
    sensor_type: str
    location: str | Place
    rate: float

    @classmethod
    def of(cls, running: RunningDevice) -> "SimulatedDevice":
        """Return the response for a running device."""
        device = running.device
        return cls(device.id, device.name, device.sensor_type, device.location, running.rate)


class SimulatorRoutes:
    """The calls of users; the target verifies their tokens."""

    def __init__(self, api: Api, devices: DevicePool) -> None:
        self._api = api
        self._devices = devices

    def add_to(self, app: web.Application) -> None:
        """Register the calls on `app`."""
        app.add_routes(
            [
                web.post("/simulator/devices", self._start),
                web.get("/simulator/devices", self._list),
                web.delete("/simulator/devices/{id}", self._stop),
            ]
        )

    async def _start(self, request: web.Request) -> web.Response:
        user, owner = await self._authenticated(request)
        body = await read_json(request, StartDevice)
        try:
            async with self._devices.slot(owner):
                device = await user.register(NewDevice(sensor_type=body.sensor_type, location=body.location))
                token = await user.device_token(device.id)
                running = self._devices.start(owner, device, body.rate, token)
        except PoolFullError as error:
            raise _pool_full_problem(error) from error
        except (ApiError, UnavailableError) as error:
            raise _target_problem(error) from error
        return json_response(SimulatedDevice.of(running), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        _, owner = await self._authenticated(request)
        return json_response({"items": [SimulatedDevice.of(running) for running in self._devices.of(owner)]})

    async def _stop(self, request: web.Request) -> web.Response:
        _, owner = await self._authenticated(request)
        if not await self._devices.stop(owner, request.match_info["id"]):
            raise Problem(404, "You have no running device with this id.")
        return web.Response(status=204)

    async def _authenticated(self, request: web.Request) -> tuple[Owner, str]:
        user = Owner(self._api, required_token(request))
        try:
            claims = await user.claims()
        except (ApiError, UnavailableError) as error:
            raise _target_problem(error) from error
        if claims.device is not None:
            raise Problem(403, "This call requires a user's token, not a device's.", code="forbidden")
        return user, claims.owner


def _pool_full_problem(error: PoolFullError) -> Problem:
    """Return 429 if the owner's limit is reached, since the owner can stop a device; 503 if the service is full."""
    of_owner = error.scope == "owner"
    return Problem(
        429 if of_owner else 503,
        f"{error}; stop one first.",
        code="rate_limited" if of_owner else "busy",
        headers={"Retry-After": str(FULL_RETRY_S)},
        extra={"limit": error.limit, "scope": error.scope, "retryAfterMs": FULL_RETRY_S * 1000},
    )


def _target_problem(error: ApiError | UnavailableError) -> Problem:
    """Pass on the target's refusals; its other errors are not the caller's fault."""
    if isinstance(error, ApiError) and error.status in (400, 401, 403, 422):
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return Problem(error.status, str(error), code=error.code, headers=headers)
    return Problem(503, "The target is not available.", headers={"Retry-After": "5"})


async def serve(settings: SimulatorSettings, shutdown: Shutdown) -> None:
    """Run the service until shutdown."""
    registry, listening = CollectorRegistry(), asyncio.Event()
    app = web.Application(middlewares=[problem_middleware])
    async with (
        device_session() as http,
        DevicePool(
            http,
            settings.target_url,
            SimulatorMetrics(registry),
            max_devices=settings.max_devices,
            max_devices_per_user=settings.max_devices_per_user,
        ).open() as devices,
        ops_server(settings, shutdown, registry, _checks(http, settings), listening),
    ):
        SimulatorRoutes(Api(http, settings.target_url, attempts=2), devices).add_to(app)
        async with listen(app, settings.host, settings.port, listening=listening) as port:
            log.info("Simulator is listening.", host=settings.host, port=port)
            await shutdown.wait()


def _checks(http: aiohttp.ClientSession, settings: SimulatorSettings) -> dict[str, Check]:
    api = Api(http, settings.target_url, attempts=1)

    async def target() -> None:
        await api.call("GET", "/.well-known/jwks.json", msgspec.Raw)

    return {"target": target}
