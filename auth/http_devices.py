"""`/devices`: from owners to their devices, and to the devices' tokens."""

from aiohttp import web

from auth.audit import Audit
from auth.bearer import Bearer, forbidden, unauthorized
from auth.bodies import DeviceAnswer, DeviceQuery, DevicesAnswer, DeviceTokenAnswer, NewDevice
from auth.devices import Device, Devices
from auth.errors import NameTakenError, NoSuchDeviceError, TooManyDevicesError, UnknownOwnerError
from auth.fields import read_fields, read_query
from auth.tokens import MANAGE_DEVICES, TokenIssuer
from runtime.bodies import json_response
from runtime.problems import Problem
from runtime.tokens import Claims


class DeviceRoutes:
    """The calls of owners, and of devices that renew their tokens."""

    def __init__(self, devices: Devices, issuer: TokenIssuer, bearer: Bearer, audit: Audit) -> None:
        self._devices = devices
        self._issuer = issuer
        self._bearer = bearer
        self._audit = audit

    def routes(self) -> list[web.RouteDef]:
        """Return what to add to an application."""
        return [
            web.post("/devices", self._register),
            web.get("/devices", self._list),
            web.get("/devices/{id}", self._show),
            web.post("/devices/{id}/token", self._issue_token),
        ]

    async def _register(self, request: web.Request) -> web.Response:
        claims = await self._bearer.device_manager(request)
        body = await read_fields(request, NewDevice)
        try:
            device = await self._devices.register(claims.owner, body.name, body.sensor_type, body.location)
        except UnknownOwnerError as error:
            raise unauthorized("The account is gone.", code="revoked") from error
        except NameTakenError as error:
            raise Problem(409, "You have a device of this name.", code="taken") from error
        except TooManyDevicesError as error:
            detail = f"One owner may have {error.limit} devices."
            raise Problem(403, detail, code="too_many_devices", extra={"limit": error.limit}) from error
        self._audit.device_registered(request, device)
        response = json_response(DeviceAnswer.of(device), status=201)
        response.headers["Location"] = f"/devices/{device.id}"
        return response

    async def _list(self, request: web.Request) -> web.Response:
        claims = await self._bearer.device_manager(request)
        query = read_query(request, DeviceQuery)
        page = await self._devices.page(
            claims.owner, name=query.name or None, after=query.cursor or None, limit=query.limit
        )
        answer = DevicesAnswer([DeviceAnswer.of(device) for device in page.items])
        if page.next_cursor is not None:
            answer.next_cursor = page.next_cursor
        return json_response(answer)

    async def _show(self, request: web.Request) -> web.Response:
        claims = await self._bearer.device_manager(request)
        return json_response(DeviceAnswer.of(await self._find(claims, request)))

    async def _issue_token(self, request: web.Request) -> web.Response:
        claims = await self._bearer.claims(request)
        if claims.device is None:
            if not claims.allows(MANAGE_DEVICES):
                raise forbidden()
            device = await self._find(claims, request)
        else:
            device = await self._itself(claims, request)
        issued = self._issuer.for_device(device)
        self._audit.token_issued(request, issued, by=claims.sub)
        return json_response(DeviceTokenAnswer(issued.token, issued.expires_in), status=201)

    async def _itself(self, claims: Claims, request: web.Request) -> Device:
        if claims.device != request.match_info["id"]:
            raise forbidden()
        try:
            device = await self._devices.find(claims.owner, claims.device)
        except NoSuchDeviceError as error:
            raise unauthorized("The device is gone.", code="revoked") from error
        if claims.gen != device.gen:  # else a revoked token could renew itself for ever
            raise unauthorized("The device's tokens were revoked.", code="revoked")
        return device

    async def _find(self, claims: Claims, request: web.Request) -> Device:
        try:
            return await self._devices.find(claims.owner, request.match_info["id"])
        except NoSuchDeviceError as error:
            raise Problem(404, "You have no device of this id.", code="no_such_device") from error
