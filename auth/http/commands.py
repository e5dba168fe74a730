"""`/devices/{id}/commands`: owners send commands to their devices, and list them."""

import msgspec
from aiohttp import web

from access.claims import Claims
from auth.audit import AuditLog
from auth.commands.command import NewCommand
from auth.commands.sender import CommandSender, CommandTimeoutError, DeviceOfflineError
from auth.commands.store import CommandStore
from auth.devices import DeviceRegistry
from auth.errors import NoSuchDeviceError, TooManyCommandsError
from auth.http.authorizer import Authorizer
from auth.http.command_bodies import CommandAnswer, CommandKept, CommandQuery, CommandRequest, CommandsAnswer
from auth.http.devices import no_such_device
from broker.commands import MAX_PAYLOAD_BYTES
from broker.interface import BrokerUnavailable
from runtime.http.bodies import json_response, read_json
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.http.problems import FieldError, Problem

# After this, some of the pending commands may be finished.
TOO_MANY_RETRY_S = 10
UNAVAILABLE_RETRY_S = 2


class CommandRoutes:
    """The calls about commands; without a `sender`, for want of a broker, they are listed only."""

    def __init__(
        self,
        devices: DeviceRegistry,
        store: CommandStore,
        sender: CommandSender | None,
        authorizer: Authorizer,
        audit: AuditLog,
    ) -> None:
        self._devices = devices
        self._store = store
        self._sender = sender
        self._authorizer = authorizer
        self._audit = audit

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="POST",
                path="/devices/{id}/commands",
                handler=self._send,
                tag="commands",
                summary="Send a command to a device",
                description="Emitted as `command` to the device's newest session. 200 has the device's own "
                "acknowledgement, `done` or `failed`. 504 with the code `timeout`: it did not acknowledge within "
                "`timeoutMs`, or its connection was lost; it may have executed the command. 409 with the code "
                "`offline`: it is not connected, and has received nothing. With `keepSeconds` the answer is 202 at "
                "once, and the command is delivered when the device is connected, at least once and always under the "
                "same id, until it is acknowledged or expires. At most 100 commands of a device may be pending: 429 "
                "with the code `too_many_commands`.",
                body=CommandRequest,
                responses={200: CommandAnswer, 202: CommandKept},
                problems=(403, 404, 409, 429, 504),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/devices/{id}/commands",
                handler=self._list,
                tag="commands",
                summary="List a device's commands, the newest first",
                description="Finished and expired ones are listed for 7 days, or as long as the operator keeps them; "
                "at most the newest 1,000 of a device. Commands that were answered with 409 are not listed.",
                query=CommandQuery,
                responses={200: CommandsAnswer},
                problems=(403, 404),
                secured=True,
            ),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        claims, device = await self._device(request)
        query = read_query(request, CommandQuery)
        page = await self._store.page(claims.owner, device, before=query.cursor or None, limit=query.limit)
        return json_response(CommandsAnswer.of(page))

    async def _send(self, request: web.Request) -> web.Response:
        claims, device = await self._device(request)
        body = await read_json(request, CommandRequest)
        new = NewCommand(
            body.name, _payload(body), body.timeout_ms, body.keep_seconds * 1000 if body.keep_seconds else None
        )
        if self._sender is None:
            raise _unavailable()
        try:
            if new.keep_ms is not None:
                command = await self._sender.keep(claims.owner, device, new)
                self._audit.command_sent(request, claims, device, new.name, "kept", command.id)
                return json_response(CommandKept.of(command), status=202)
            outcome = await self._sender.send(claims.owner, device, new)
        except NoSuchDeviceError as error:  # removed since it was found
            raise no_such_device() from error
        except DeviceOfflineError as error:
            self._audit.command_sent(request, claims, device, new.name, "offline")
            raise Problem(409, "The device is not connected; it received nothing.", code="offline") from error
        except CommandTimeoutError as error:
            self._audit.command_sent(request, claims, device, new.name, "timeout", error.command_id)
            raise _timeout(error, new.timeout_ms) from error
        except TooManyCommandsError as error:
            self._audit.command_sent(request, claims, device, new.name, "refused")
            raise _too_many(error) from error
        except BrokerUnavailable as error:
            raise _unavailable() from error
        self._audit.command_sent(request, claims, device, new.name, outcome.acknowledgement.status, outcome.id)
        return json_response(CommandAnswer.of(outcome))

    async def _device(self, request: web.Request) -> tuple[Claims, str]:
        claims = await self._authorizer.device_manager(request)
        try:
            return claims, (await self._devices.find(claims.owner, request.match_info["id"])).id
        except NoSuchDeviceError as error:
            raise no_such_device() from error


def _payload(body: CommandRequest) -> str:
    """Return the payload as JSON; Problem 422 if it is too large."""
    encoded = msgspec.json.encode(body.payload)
    if len(encoded) > MAX_PAYLOAD_BYTES:
        wrong = FieldError("payload", "too_large", f"This may have at most {MAX_PAYLOAD_BYTES} bytes of JSON.")
        raise Problem(422, "The request has the wrong form.", errors=(wrong,))
    return encoded.decode()


def _timeout(error: CommandTimeoutError, timeout_ms: int) -> Problem:
    if error.reason == "lost":
        detail = "The device's connection was lost before it acknowledged; it may have executed the command."
    else:
        detail = f"The device did not acknowledge within {timeout_ms} ms; it may have executed the command."
    return Problem(504, detail, code="timeout", extra={"id": error.command_id})


def _too_many(error: TooManyCommandsError) -> Problem:
    detail = f"A device may have {error.limit} pending commands."
    headers = {"Retry-After": str(TOO_MANY_RETRY_S)}
    return Problem(429, detail, code="too_many_commands", headers=headers, extra={"limit": error.limit})


def _unavailable() -> Problem:
    headers = {"Retry-After": str(UNAVAILABLE_RETRY_S)}
    return Problem(503, "No gateway can be reached; nothing was sent.", code="unavailable", headers=headers)
