"""PEOPLE → DEVICES: `/simulator/devices` starts, lists and stops simulated devices in the name of who asks."""

from typing import Annotated

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
from simulator.errors import ApiError, UnavailableError
from simulator.running import Devices, FullError, Running
from simulator.settings import SimulatorSettings

log = logger("simulator")

MAX_RATE = 1000.0
FULL_RETRY_S = 30
_NAME = r"^[A-Za-z0-9_.:-]+$(?!\n)"
_NAME_RULE = rule("made of A-Z a-z 0-9 _ . : - only")


class StartDevice(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Body of `POST /simulator/devices`; `rate` is in readings a second. The target checks the rest."""

    sensor_type: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_NAME, extra=_NAME_RULE)]
    location: Annotated[str, msgspec.Meta(max_length=256, pattern=ONE_LINE, extra=ONE_LINE_RULE)] | Place
    rate: Annotated[float, msgspec.Meta(gt=0, le=MAX_RATE)] = 1.0


class SimulatedDevice(msgspec.Struct, rename="camel"):
    """A device at work, as its owner sees it."""

    id: str
    name: str
    sensor_type: str
    location: str | Place
    rate: float

    @classmethod
    def of(cls, running: Running) -> "SimulatedDevice":
        """Return what is told of a device."""
        device = running.device
        return cls(device.id, device.name, device.sensor_type, device.location, running.rate)


class DeviceRoutes:
    """The calls of users; whose token it is and what it may do is the target's to say."""

    def __init__(self, api: Api, devices: Devices) -> None:
        self._api = api
        self._devices = devices

    def add_to(self, app: web.Application) -> None:
        """Serve the calls on `app`."""
        app.add_routes(
            [
                web.post("/simulator/devices", self._start),
                web.get("/simulator/devices", self._list),
                web.delete("/simulator/devices/{id}", self._stop),
            ]
        )

    async def _start(self, request: web.Request) -> web.Response:
        user, owner = await self._caller(request)
        body = await read_json(request, StartDevice)
        try:
            async with self._devices.place(owner):
                device = await user.register(NewDevice(sensor_type=body.sensor_type, location=body.location))
                token = await user.device_token(device.id)
                running = self._devices.start(owner, device, body.rate, token)
        except FullError as error:
            raise _full(error) from error
        except (ApiError, UnavailableError) as error:
            raise _problem(error) from error
        return json_response(SimulatedDevice.of(running), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        _, owner = await self._caller(request)
        return json_response({"items": [SimulatedDevice.of(running) for running in self._devices.of(owner)]})

    async def _stop(self, request: web.Request) -> web.Response:
        _, owner = await self._caller(request)
        if not await self._devices.stop(owner, request.match_info["id"]):
            raise Problem(404, "You have no device of this id at work here.")
        return web.Response(status=204)

    async def _caller(self, request: web.Request) -> tuple[Owner, str]:
        user = Owner(self._api, required_token(request))
        try:
            claims = await user.claims()
        except (ApiError, UnavailableError) as error:
            raise _problem(error) from error
        if claims.device is not None:
            raise Problem(403, "This takes a user's token, not a device's.", code="forbidden")
        return user, claims.owner


def _full(error: FullError) -> Problem:
    """Return 429 for a share that is used up, for its owner can make room; 503 when the service is full."""
    of_owner = error.scope == "owner"
    return Problem(
        429 if of_owner else 503,
        f"{error}; stop one first.",
        code="rate_limited" if of_owner else "busy",
        headers={"Retry-After": str(FULL_RETRY_S)},
        extra={"limit": error.limit, "scope": error.scope, "retryAfterMs": FULL_RETRY_S * 1000},
    )


def _problem(error: ApiError | UnavailableError) -> Problem:
    """Hand on what the target refuses; whatever else it says is its trouble, not the caller's."""
    if isinstance(error, ApiError) and error.status in (400, 401, 403, 422):
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return Problem(error.status, str(error), code=error.code, headers=headers)
    return Problem(503, "The target does not answer as it should.", headers={"Retry-After": "5"})


async def serve(settings: SimulatorSettings, shutdown: Shutdown) -> None:
    """Run the service as a process of its own."""
    registry = CollectorRegistry()
    app = web.Application(middlewares=[problem_middleware])
    async with (
        device_session() as http,
        Devices(
            http,
            settings.target_url,
            registry,
            max_devices=settings.max_devices,
            max_devices_per_user=settings.max_devices_per_user,
        ).open() as devices,
        ops_server(settings, shutdown, registry, {"target": _target_check(Api(http, settings.target_url, attempts=1))}),
    ):
        DeviceRoutes(Api(http, settings.target_url, attempts=2), devices).add_to(app)
        async with listen(app, settings.host, settings.port) as port:
            log.info("Simulated devices can be started.", host=settings.host, port=port)
            await shutdown.wait()


def _target_check(api: Api) -> Check:
    async def check() -> None:
        await api.call("GET", "/.well-known/jwks.json", msgspec.Raw)

    return check
