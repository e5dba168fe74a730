"""`/provisioning`: users make, list and delete provisioning keys."""

import time

from aiohttp import web
from msgspec import UNSET

from auth.audit import AuditLog
from auth.errors import EndedSessionError, NoSuchProvisioningKeyError, NoSuchUserError, TooManyProvisioningKeysError
from auth.http.authorizer import Authorizer, account_gone, session_ended
from auth.http.expiry import expiry_ms, wrong_expiry
from auth.http.provisioning_bodies import (
    NewProvisioningAnswer,
    ProvisioningAnswer,
    ProvisioningItem,
    ProvisioningRequest,
)
from auth.provisioning import ProvisioningKeys
from runtime.http.bodies import json_response, read_json
from runtime.http.operation import Operation
from runtime.http.problems import Problem


class ProvisioningRoutes:
    """The calls of users about their provisioning keys.

    None takes an API key: what a provisioning key lets in would outlive the API key that made it.
    """

    def __init__(self, keys: ProvisioningKeys, authorizer: Authorizer, audit: AuditLog) -> None:
        self._keys = keys
        self._authorizer = authorizer
        self._audit = audit

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="POST",
                path="/provisioning",
                handler=self._create,
                tag="provisioning",
                summary="Make a provisioning key",
                description="Devices that have it claim themselves with `POST /devices/claim`, at most `maxDevices`. "
                "It does nothing else. At most 100 a user.",
                body=ProvisioningRequest,
                responses={201: NewProvisioningAnswer},
                problems=(403,),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/provisioning",
                handler=self._list,
                tag="provisioning",
                summary="List your provisioning keys, the oldest first",
                responses={200: ProvisioningAnswer},
                problems=(403,),
                secured=True,
            ),
            Operation(
                method="DELETE",
                path="/provisioning/{id}",
                handler=self._delete,
                tag="provisioning",
                summary="End a provisioning key",
                description="Devices that were claimed with it stay, and so do their tokens.",
                responses={204: None},
                problems=(403, 404),
                secured=True,
            ),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        body = await read_json(request, ProvisioningRequest)
        try:
            key, text = await self._keys.create(claims, body.name, body.max_devices, _expiry_ms(body))
        except NoSuchUserError as error:
            raise account_gone() from error
        except EndedSessionError as error:
            raise session_ended() from error
        except TooManyProvisioningKeysError as error:
            detail = f"One user may have {error.limit} provisioning keys: delete one first."
            raise Problem(422, detail, code="too_many_keys", extra={"limit": error.limit}) from error
        self._audit.provisioning_key_created(request, claims.sub, key)
        return json_response(NewProvisioningAnswer.of(key, text), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        keys = await self._keys.all_of(claims.sub)
        return json_response(ProvisioningAnswer([ProvisioningItem.of(key) for key in keys]))

    async def _delete(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        key_id = request.match_info["id"]
        try:
            await self._keys.delete(claims.sub, key_id)
        except NoSuchUserError as error:
            raise account_gone() from error
        except NoSuchProvisioningKeyError as error:
            detail = "You have no provisioning key with this id."
            raise Problem(404, detail, code="no_such_key") from error
        self._audit.provisioning_key_deleted(request, claims.sub, key_id)
        return web.Response(status=204)


def _expiry_ms(body: ProvisioningRequest) -> int | None:
    """Return when a key is to expire; Problem 422 for a time that is past."""
    if body.expires_at is UNSET:
        return None
    expires_at_ms = expiry_ms(body.expires_at)
    if expires_at_ms <= time.time() * 1000:
        raise wrong_expiry("This must be in the future.")
    return expires_at_ms
