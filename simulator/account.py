"""An owner and its devices, over HTTP: sign up, log in, find or register devices, fetch their tokens."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from access.tokens import Claims
from readings.place import Place
from simulator.api import Api
from simulator.errors import ApiError, SimulatorError
from simulator.point import SentPoint
from simulator.wire import RejectedItem

T = TypeVar("T")

# Calls that may be open at once when many devices are registered.
MAX_CALLS = 16


class NewDevice(msgspec.Struct, frozen=True, rename="camel"):
    """A device to be registered; without a name the server gives one."""

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
    """Answer to `GET /devices`."""

    items: list[Device]


class LogInAnswer(msgspec.Struct, rename="camel"):
    """Answer to a log-in; what else it holds is not needed here."""

    access_token: str


class DeviceTokenAnswer(msgspec.Struct, rename="camel"):
    """Answer to `POST /devices/{id}/token`."""

    token: str


class TakenAnswer(msgspec.Struct):
    """Answer to `POST /readings`."""

    accepted: int
    rejected: list[RejectedItem]


class Owner:
    """A user, known by an access token."""

    def __init__(self, api: Api, token: str) -> None:
        self._api = api
        self._token = token
        self._calls = asyncio.Semaphore(MAX_CALLS)

    async def claims(self) -> Claims:
        """Return the token's claims: whose it is."""
        return await self._call("GET", "/user/token", Claims)

    async def register(self, device: NewDevice) -> Device:
        """Register a device; ApiError 409 when the name is taken."""
        return await self._call("POST", "/devices", Device, body=device)

    async def find(self, name: str) -> Device | None:
        """Return the device of that name, if the owner has one."""
        page = await self._call("GET", "/devices", DevicePage, query={"name": name})
        return next((device for device in page.items if device.name == name), None)

    async def find_or_register(self, device: NewDevice) -> Device:
        """Return the owner's device of that name, registered now if need be."""
        if device.name is UNSET:
            return await self.register(device)
        if found := await self.find(device.name):
            return found
        try:
            return await self.register(device)
        except ApiError as error:
            if error.status != 409:
                raise
        if found := await self.find(device.name):  # another simulator was faster
            return found
        raise SimulatorError(f"the device name {device.name!r} is taken, but no device has it")

    async def find_or_register_all(self, devices: Sequence[NewDevice]) -> list[Device]:
        """Find or register many, a few at a time, in the order given."""
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
            raise _first(errors) from None
        return [found[index] for index in range(len(devices))]

    async def device_token(self, device_id: str) -> str:
        """Return a fresh token of a device."""
        return (await self._call("POST", f"/devices/{device_id}/token", DeviceTokenAnswer)).token

    async def send(self, device: str, readings: Sequence[SentPoint]) -> TakenAnswer:
        """Send up to 1,000 readings of a device, registered or not, without a socket."""
        return await self._call("POST", "/readings", TakenAnswer, body=readings, device=device)

    async def _call(self, method: str, path: str, answer_type: type[T], **options: Any) -> T:
        async with self._calls:
            return await self._api.call(method, path, answer_type, token=self._token, **options)


class Account(Owner):
    """A user, known by e-mail and password. `open` it first; it logs in again when its access token has expired."""

    def __init__(self, api: Api, email: str, password: str, *, name: str = "Simulator") -> None:
        super().__init__(api, "")
        self._email = email
        self._password = password
        self._name = name
        self._logging_in = asyncio.Lock()

    async def open(self) -> None:
        """Sign up unless the account exists, and log in; SimulatorError says what to do when that fails."""
        closed = False
        body = {"name": self._name, "email": self._email, "password": self._password}
        try:
            await self._api.call("POST", "/user/signup", msgspec.Raw, body=body)
        except ApiError as error:
            if error.status not in (403, 409):
                raise
            closed = error.status == 403
        try:
            await self._log_in()
        except ApiError as error:
            if error.status != 401:
                raise
            advice = "the server takes no sign-ups: ask its operator for an account" if closed else "check --password"
            raise SimulatorError(f"{self._email} cannot log in; {advice}") from error

    async def _log_in(self) -> None:
        body = {"email": self._email, "password": self._password}
        self._token = (await self._api.call("POST", "/user/login", LogInAnswer, body=body)).access_token

    async def _call(self, method: str, path: str, answer_type: type[T], **options: Any) -> T:
        used = self._token
        try:
            return await super()._call(method, path, answer_type, **options)
        except ApiError as error:
            if error.status != 401:
                raise
        async with self._logging_in:
            if self._token == used:  # else another call has logged in meanwhile
                await self._log_in()
        return await super()._call(method, path, answer_type, **options)


def _first(errors: BaseExceptionGroup[SimulatorError]) -> SimulatorError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
