"""`/keys`: users make, list and delete API keys, for scripts, for services of their own and for colleagues."""

import time

from aiohttp import web
from msgspec import UNSET

from access.claims import MAX_API_KEY_LIFETIME_S
from auth.api_keys import ApiKeys
from auth.audit import AuditLog
from auth.errors import (
    EndedSessionError,
    NoSuchApiKeyError,
    NoSuchUserError,
    NotYourDevicesError,
    TooManyApiKeysError,
    TooManyEndedApiKeysError,
)
from auth.http.api_key_bodies import ApiKeyItem, ApiKeyRequest, ApiKeysAnswer, NewApiKeyAnswer
from auth.http.authorizer import Authorizer, account_gone, session_ended
from auth.http.expiry import expiry_ms, wrong_expiry
from auth.login_throttle import LoginThrottle
from auth.tokens.issuer import NewApiKey
from runtime.http.bodies import json_response, read_json
from runtime.http.fields import MAX_FIELD_ERRORS
from runtime.http.operation import Operation
from runtime.http.problems import FieldError, Problem
from runtime.times import rfc3339


class ApiKeyRoutes:
    """The calls of users about their API keys; none of them takes a key."""

    def __init__(self, api_keys: ApiKeys, throttle: LoginThrottle, authorizer: Authorizer, audit: AuditLog) -> None:
        self._api_keys = api_keys
        self._throttle = throttle
        self._authorizer = authorizer
        self._audit = audit

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="POST",
                path="/keys",
                handler=self._create,
                tag="keys",
                summary="Make an API key",
                description="A token of at most 366 days with the scopes you name, for scripts and services. With "
                "`devices`, it reads, sends and manages these devices only, and registers none. No key makes keys or "
                "changes the account. At most 100 a user.",
                body=ApiKeyRequest,
                responses={201: NewApiKeyAnswer},
                problems=(403, 429),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/keys",
                handler=self._list,
                tag="keys",
                summary="List your API keys, the oldest first",
                responses={200: ApiKeysAnswer},
                problems=(403,),
                secured=True,
            ),
            Operation(
                method="DELETE",
                path="/keys/{id}",
                handler=self._delete,
                tag="keys",
                summary="End an API key and every token that was issued with it",
                description="Sockets and live feeds end within 5 s.",
                responses={204: None},
                problems=(403, 404),
                secured=True,
            ),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        body = await read_json(request, ApiKeyRequest)
        new = _new_key(body)
        self._throttle.new_api_key(claims.sub)
        try:
            issued = await self._api_keys.create(claims, new)
        except NoSuchUserError as error:
            raise account_gone() from error
        except EndedSessionError as error:
            raise session_ended() from error
        except NotYourDevicesError as error:
            raise _not_your_devices(body, error.ids) from error
        except TooManyApiKeysError as error:
            detail = f"One user may have {error.limit} API keys: delete one first."
            raise Problem(422, detail, code="too_many_keys", extra={"limit": error.limit}) from error
        except TooManyEndedApiKeysError as error:
            raise _too_many_ended(error) from error
        self._audit.key_created(request, new, issued)
        return json_response(NewApiKeyAnswer.of(new, issued), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        return json_response(ApiKeysAnswer([ApiKeyItem.of(key) for key in await self._api_keys.all_of(claims.sub)]))

    async def _delete(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        key_id = request.match_info["id"]
        try:
            await self._api_keys.delete(claims.sub, key_id)
        except NoSuchUserError as error:
            raise account_gone() from error
        except NoSuchApiKeyError as error:
            raise Problem(404, "You have no API key with this id.", code="no_such_key") from error
        self._audit.key_deleted(request, claims.sub, key_id)
        return web.Response(status=204)


def _new_key(body: ApiKeyRequest) -> NewApiKey:
    """Return the key that a body asks for; Problem 422 for a time that is past, or too far ahead."""
    now = int(time.time())
    latest = now + MAX_API_KEY_LIFETIME_S
    expires_at = latest
    if body.expires_at is not UNSET:
        expires_at = expiry_ms(body.expires_at) // 1000
        if not now < expires_at <= latest:
            raise wrong_expiry("This must be in the future, and at most 366 days ahead.")
    devices = None if body.devices is UNSET else tuple(dict.fromkeys(body.devices))
    return NewApiKey(body.name, " ".join(dict.fromkeys(body.scope)), devices, now, expires_at)


def _too_many_ended(error: TooManyEndedApiKeysError) -> Problem:
    detail = (
        f"You have ended {error.limit} API keys before they expired, the first until {rfc3339(error.until_ms)}: make "
        "no more until then, and let keys of a short life expire."
    )
    return Problem(422, detail, code="too_many_ended_keys", extra={"limit": error.limit})


def _not_your_devices(body: ApiKeyRequest, unknown: set[str]) -> Problem:
    named = () if body.devices is UNSET else body.devices
    errors = [
        FieldError(f"devices[{number}]", "unknown", "You have no device with this id.")
        for number, device in enumerate(named)
        if device in unknown
    ]
    return Problem(422, "The request has the wrong form.", errors=tuple(errors[:MAX_FIELD_ERRORS]))
