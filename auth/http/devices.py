"""`/devices`: owners manage their devices and the devices' tokens."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from msgspec import UNSET

from access.bearer import forbidden, require_covered, unauthorized
from access.claims import Claims
from auth.api_keys import ApiKeys
from auth.audit import AuditLog
from auth.devices import Device, DeviceRegistry
from auth.errors import (
    ExpiredKeyError,
    NameTakenError,
    NoSuchApiKeyError,
    NoSuchDeviceError,
    NoSuchUserError,
    TooManyDevicesError,
)
from auth.http.authorizer import Authorizer, account_gone
from auth.http.bodies import DeviceAnswer, DeviceChange, DeviceQuery, DevicesAnswer, DeviceTokenAnswer, NewDevice
from auth.tokens.issuer import MANAGE_DEVICES, IssuingKey, TokenIssuer
from runtime.http.bodies import json_response, read_json
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.http.problems import Problem, bad_body

# `/devices/batch` and `/devices/claim` are paths of their own, with their own methods.
DEVICE = "/devices/{id:(?!(?:batch|claim)$)[^/]+}"


class DeviceRoutes:
    """The calls of owners, and of devices that renew their own tokens."""

    def __init__(
        self,
        devices: DeviceRegistry,
        api_keys: ApiKeys,
        issuer: TokenIssuer,
        authorizer: Authorizer,
        audit: AuditLog,
    ) -> None:
        self._devices = devices
        self._api_keys = api_keys
        self._issuer = issuer
        self._authorizer = authorizer
        self._audit = audit

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="POST",
                path="/devices",
                handler=self._register,
                tag="devices",
                summary="Register a device",
                body=NewDevice,
                responses={201: DeviceAnswer},
                headers={201: {"Location": "URL path of the device"}},
                problems=(403, 409),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/devices",
                handler=self._list,
                tag="devices",
                summary="List your devices, the oldest first",
                description="With `readings:read` or `devices:manage`. An API key limited to devices lists those.",
                query=DeviceQuery,
                responses={200: DevicesAnswer},
                problems=(403,),
                secured=True,
            ),
            Operation(
                method="GET",
                path=DEVICE,
                handler=self._show,
                tag="devices",
                summary="Show a device",
                description="With `readings:read` or `devices:manage`.",
                responses={200: DeviceAnswer},
                problems=(403, 404),
                secured=True,
            ),
            Operation(
                method="PATCH",
                path=DEVICE,
                handler=self._change,
                tag="devices",
                summary="Change a device's name, sensor type or location",
                description="A token carries the registration as of its issue: issue a new one afterwards.",
                body=DeviceChange,
                responses={200: DeviceAnswer},
                problems=(403, 404, 409),
                secured=True,
            ),
            Operation(
                method="DELETE",
                path=DEVICE,
                handler=self._delete,
                tag="devices",
                summary="Remove a device and revoke its tokens",
                description="Its readings stay.",
                responses={204: None},
                problems=(403, 404),
                secured=True,
            ),
            Operation(
                method="POST",
                path="/devices/{id}/token",
                handler=self._issue_token,
                tag="devices",
                summary="Issue a token for a device",
                description="For its owner, or for the device itself with a token that is still valid. A token "
                "issued with an API key ends with the key, when it expires or is deleted; so do its renewals.",
                responses={201: DeviceTokenAnswer},
                problems=(403, 404),
                secured=True,
            ),
            Operation(
                method="DELETE",
                path="/devices/{id}/tokens",
                handler=self._revoke_tokens,
                tag="devices",
                summary="Revoke every token of a device",
                responses={204: None},
                problems=(403, 404),
                secured=True,
            ),
        ]

    async def _register(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.device_manager(request)
        body = await read_json(request, NewDevice)
        try:
            device = await self._devices.register(claims.owner, body.name, body.sensor_type, body.location)
        except NoSuchUserError as error:
            raise account_gone() from error
        except NameTakenError as error:
            raise _name_taken() from error
        except TooManyDevicesError as error:
            detail = f"One owner may have {error.limit} devices."
            raise Problem(403, detail, code="too_many_devices", extra={"limit": error.limit}) from error
        self._audit.device_registered(request, device)
        response = json_response(DeviceAnswer.of(device), status=201)
        response.headers["Location"] = f"/devices/{device.id}"
        return response

    async def _list(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.device_reader(request)
        query = read_query(request, DeviceQuery)
        page = await self._devices.page(
            claims.owner,
            name=query.name or None,
            after=query.cursor or None,
            limit=query.limit,
            within=claims.devices,
        )
        return json_response(DevicesAnswer.of(page))

    async def _show(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.device_reader(request)
        return json_response(DeviceAnswer.of(await self._find(claims, request)))

    async def _change(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.device_manager(request)
        body = await read_json(request, DeviceChange)
        if body.name is UNSET and body.sensor_type is UNSET and body.location is UNSET:
            raise bad_body("Give a name, a sensorType or a location.", status=422)
        try:
            device = await self._devices.change(
                claims.owner,
                request.match_info["id"],
                name=None if body.name is UNSET else body.name,
                sensor_type=None if body.sensor_type is UNSET else body.sensor_type,
                location=None if body.location is UNSET else body.location,
            )
        except NoSuchDeviceError as error:
            raise no_such_device() from error
        except NameTakenError as error:
            raise _name_taken() from error
        self._audit.device_changed(request, claims.owner, device.id)
        return json_response(DeviceAnswer.of(device))

    async def _delete(self, request: web.Request) -> web.Response:
        return await self._end(request, self._devices.delete, "A device was removed.")

    async def _revoke_tokens(self, request: web.Request) -> web.Response:
        return await self._end(request, self._devices.revoke_tokens, "A device's tokens were revoked.")

    async def _end(self, request: web.Request, end: Callable[[str, str], Awaitable[None]], event: str) -> web.Response:
        claims = await self._authorizer.device_manager(request)
        device_id = request.match_info["id"]
        try:
            await end(claims.owner, device_id)
        except NoSuchDeviceError as error:
            raise no_such_device() from error
        self._audit.device_ended(request, event, claims.owner, device_id)
        return web.Response(status=204)

    async def _issue_token(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.claims(request)
        if claims.device is None:
            if not claims.allows(MANAGE_DEVICES):
                raise forbidden(MANAGE_DEVICES)
            require_covered(claims, request.match_info["id"])
            device = await self._owned(claims, request)
        else:
            device = await self._own(claims, claims.device, request)
        try:
            issued = self._issuer.for_device(device, await self._issuing_key(claims))
        except ExpiredKeyError as error:
            raise unauthorized("The API key has expired.", code="expired") from error
        self._audit.token_issued(request, issued, by=claims.holder)
        return json_response(DeviceTokenAnswer(issued.token, issued.expires_in), status=201)

    async def _issuing_key(self, claims: Claims) -> IssuingKey | None:
        """Return the API key with which, or with a token of which, a token is issued.

        Call it after the device was found: a key that ends later has a revocation that covers the token.
        """
        key_id = claims.issuing_key if claims.key is None else claims.key
        if key_id is None:
            return None
        try:
            return await self._api_keys.issuing(claims.owner, key_id)
        except NoSuchApiKeyError as error:  # it has ended since the token was verified
            raise unauthorized("The API key is gone.", code="revoked") from error

    async def _own(self, claims: Claims, device_id: str, request: web.Request) -> Device:
        if device_id != request.match_info["id"]:
            raise forbidden(MANAGE_DEVICES)
        try:
            device = await self._devices.find_to_issue(claims.owner, device_id)
        except NoSuchDeviceError as error:
            raise unauthorized("The device is gone.", code="revoked") from error
        if claims.gen != device.gen:  # revoked since the token was verified: it must not renew itself
            raise unauthorized("The device's tokens were revoked.", code="revoked")
        return device

    async def _owned(self, claims: Claims, request: web.Request) -> Device:
        try:
            return await self._devices.find_to_issue(claims.owner, request.match_info["id"])
        except NoSuchDeviceError as error:
            raise no_such_device() from error

    async def _find(self, claims: Claims, request: web.Request) -> Device:
        try:
            return await self._devices.find(claims.owner, request.match_info["id"])
        except NoSuchDeviceError as error:
            raise no_such_device() from error


def no_such_device() -> Problem:
    """Return the refusal of a device that this owner does not have."""
    return Problem(404, "You have no device with this id.", code="no_such_device")


def _name_taken() -> Problem:
    return Problem(409, "You have a device with this name already.", code="taken")
