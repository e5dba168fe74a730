"""A user and its devices over HTTP: sign up, log in, find or register devices, fetch device tokens."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from access.claims import Claims
from readings.place import Place
from simulator.api import Api
from simulator.errors import ApiError, SimulatorError
from simulator.reading import DeviceReading
from simulator.socket_connection import RejectedItem

T = TypeVar("T")

# Concurrent calls while many devices are registered.
MAX_CALLS = 16
_SEND = "readings:write"


class NewDevice(msgspec.Struct, frozen=True, rename="camel"):
    """A device to register; the server names it unless `name` is set."""

    sensor_type: str
    location: str | Place
    name: str | UnsetType = UNSET


class Device(msgspec.Struct, frozen=True, rename="camel"):
    """A registered device."""

    id: str
    name: str
    sensor_type: str
    location: str | Place


class DevicePage(msgspec.Struct, rename="camel"):
    """Response to `GET /devices`."""

    items: list[Device]


class LogInResponse(msgspec.Struct, rename="camel"):
    """Response to a log-in; its other fields are not needed here."""

    access_token: str


class DeviceTokenResponse(msgspec.Struct, rename="camel"):
    """Response to `POST /devices/{id}/token`."""

    token: str


class ReadingsResponse(msgspec.Struct):
    """Response to `POST /readings`."""

    accepted: int
    rejected: list[RejectedItem]


class Owner:
    """A user, authenticated by an access token."""

    def __init__(self, api: Api, token: str) -> None:
        self._api = api
        self._token = token
        self._calls = asyncio.Semaphore(MAX_CALLS)

    async def claims(self) -> Claims:
        """Return the token's claims, which name its owner."""
        return await self._call("GET", "/user/token", Claims)

    async def register(self, device: NewDevice) -> Device:
        """Register a device; ApiError 409 when the name is taken."""
        return await self._call("POST", "/devices", Device, body=device)

    async def find(self, name: str) -> Device | None:
        """Return the owner's device of that name, or None."""
        page = await self._call("GET", "/devices", DevicePage, query={"name": name})
        return next((device for device in page.items if device.name == name), None)

    async def find_or_register(self, device: NewDevice) -> Device:
        """Return the owner's device of that name; register it if it does not exist."""
        if device.name is UNSET:
            return await self.register(device)
        if found := await self.find(device.name):
            return found
        try:
            return await self.register(device)
        except ApiError as error:
            if error.status != 409:
                raise
        if found := await self.find(device.name):  # another simulator has just registered it
            return found
        raise SimulatorError(f"the device name {device.name!r} is taken, but no device has it")

    async def find_or_register_all(self, devices: Sequence[NewDevice]) -> list[Device]:
        """Find or register many devices, MAX_CALLS at a time; the result has the order of `devices`."""
        rest = iter(enumerate(devices))
        found: dict[int, Device] = {}

        async def work() -> None:
            for index, device in rest:
                found[index] = await self.find_or_register(device)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(MAX_CALLS, len(devices))):
                    tasks.create_task(work())
        except* SimulatorError as errors:
            raise _first_error(errors) from None
        return [found[index] for index in range(len(devices))]

    async def device_token(self, device_id: str) -> str:
        """Return a new token for a device."""
        return (await self._call("POST", f"/devices/{device_id}/token", DeviceTokenResponse)).token

    async def send(self, device: str, readings: Sequence[DeviceReading]) -> ReadingsResponse:
        """Send up to 1,000 readings of a device, registered or not, over HTTP."""
        return await self._call("POST", "/readings", ReadingsResponse, body=readings, device=device)

    async def _call(self, method: str, path: str, response_type: type[T], **options: Any) -> T:
        async with self._calls:
            return await self._api.call(method, path, response_type, token=self._token, **options)


class Account(Owner):
    """A user, authenticated by e-mail and password. `open` it first; logs in again when its access token expires.

    `name`: that of a new user; None: the user exists.
    """

    def __init__(self, api: Api, email: str, password: str, *, name: str | None = "Simulator") -> None:
        super().__init__(api, "")
        self._email = email
        self._password = password
        self._name = name
        self._logging_in = asyncio.Lock()

    async def open(self) -> None:
        """Sign up unless the account exists, then log in; SimulatorError says what to do if that fails."""
        refused = "" if self._name is None else await self._sign_up(self._name)
        try:
            await self._log_in()
        except ApiError as error:
            if error.status != 401:
                raise
            advice = "check --password" if self._name is not None else "check --email and --password"
            raise SimulatorError(f"{self._email} cannot log in; {refused or advice}") from error

    async def _sign_up(self, name: str) -> str:
        """Sign up unless the account exists; return why it can be neither, or an empty text."""
        body = {"name": name, "email": self._email, "password": self._password}
        try:
            await self._api.call("POST", "/user/signup", msgspec.Raw, body=body)
        except ApiError as error:
            if error.status == 403:
                return "the server does not accept sign-ups: ask its operator for an account"
            if error.status == 422:  # the account may exist all the same
                return f"check --password; a new account is refused: {error}"
            if error.status != 409:
                raise
        return ""

    async def _log_in(self) -> None:
        body = {"email": self._email, "password": self._password}
        self._token = (await self._api.call("POST", "/user/login", LogInResponse, body=body)).access_token

    async def _call(self, method: str, path: str, response_type: type[T], **options: Any) -> T:
        used = self._token
        try:
            return await super()._call(method, path, response_type, **options)
        except ApiError as error:
            if error.status != 401:
                raise
        async with self._logging_in:
            if self._token == used:  # otherwise another call has already logged in
                await self._log_in()
        return await super()._call(method, path, response_type, **options)


async def open_with_key(api: Api, token: str) -> Owner:
    """Return the owner of an API key that may send readings of every device; SimulatorError for another token."""
    owner = Owner(api, token)
    try:
        claims = await owner.claims()
    except ApiError as error:
        if error.status != 401:
            raise
        raise SimulatorError(f"the API key is not accepted: {error}") from error
    if claims.device is not None:
        raise SimulatorError("the token is a device's; an import takes an API key (POST /keys)")
    if claims.devices is not None:
        raise SimulatorError("this API key is limited to its devices, and may not import; take one without `devices`")
    if not claims.allows(_SEND):
        raise SimulatorError(f"this API key may not send readings: it has not the scope {_SEND}")
    return owner


def _first_error(errors: BaseExceptionGroup[SimulatorError]) -> SimulatorError:
    first = errors.exceptions[0]
    return _first_error(first) if isinstance(first, BaseExceptionGroup) else first
