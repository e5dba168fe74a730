"""`/devices/claim` and `/devices/{id}/claim`: devices claim themselves, and owners release them."""

from aiohttp import web

from access.bearer import unauthorized
from auth.audit import AuditLog
from auth.claim_throttle import ClaimThrottle
from auth.device_claims import Claim, DeviceClaims
from auth.errors import (
    ClaimedError,
    ClaimRefusedError,
    NameTakenError,
    NoSuchDeviceError,
    NotClaimedError,
    TooManyClaimsError,
    TooManyDevicesError,
)
from auth.http.authorizer import Authorizer
from auth.http.devices import no_such_device
from auth.http.provisioning_bodies import ClaimAnswer, ClaimRequest
from auth.tokens.issuer import TokenIssuer
from runtime.http.bodies import json_response, read_json
from runtime.http.operation import Operation
from runtime.http.problems import Problem


class ClaimRoutes:
    """The call of devices that have a provisioning key and no token, and that of their owners."""

    def __init__(
        self,
        device_claims: DeviceClaims,
        issuer: TokenIssuer,
        authorizer: Authorizer,
        throttle: ClaimThrottle,
        audit: AuditLog,
    ) -> None:
        self._device_claims = device_claims
        self._issuer = issuer
        self._authorizer = authorizer
        self._throttle = throttle
        self._audit = audit

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="POST",
                path="/devices/claim",
                handler=self._claim,
                tag="provisioning",
                summary="Claim a device with a provisioning key",
                description="For a device, without a token of its own yet: registers the device under the name "
                "`hardwareId` (201), or gives the device that was claimed with the same secret before (200), each "
                "time with a new token. So a device repeats the call until it has an answer, and whenever its token "
                "has ended. 409 `claimed`: another secret holds it, until its owner releases it; 409 `taken`: its "
                "owner has registered a device with this name. 403 `too_many_claims` or `too_many_devices`: the key "
                "or its owner has as many devices as may be.",
                body=ClaimRequest,
                responses={200: ClaimAnswer, 201: ClaimAnswer},
                problems=(401, 403, 409, 429),
            ),
            Operation(
                method="DELETE",
                path="/devices/{id}/claim",
                handler=self._release,
                tag="provisioning",
                summary="Release a claimed device",
                description="Revokes its tokens, and lets the next secret claim it: for a device that lost its own. "
                "409 with the code `not_claimed`: there is no claim.",
                responses={204: None},
                problems=(403, 404, 409),
                secured=True,
            ),
        ]

    async def _claim(self, request: web.Request) -> web.Response:
        body = await read_json(request, ClaimRequest)
        self._throttle.count_address(request)
        await self._authorizer.claimant(request)
        claim, key = Claim(body.hardware_id, body.sensor_type, body.claim_secret), None
        try:
            key = await self._device_claims.find_key(body.provisioning_key)
            self._throttle.count_key(key)
            claimed = await self._device_claims.claim(key, claim)
        except (ClaimRefusedError, ClaimedError, NameTakenError, TooManyClaimsError, TooManyDevicesError) as error:
            refused = _refused(error)
            reason = error.reason if isinstance(error, ClaimRefusedError) else refused.code
            self._audit.claim_refused(request, claim, key, reason)
            raise refused from error
        issued = self._issuer.for_device(claimed.device)
        self._audit.device_claimed(request, key, claimed, issued)
        return json_response(ClaimAnswer.of(claimed, issued), status=201 if claimed.is_new else 200)

    async def _release(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.device_manager(request)
        device_id = request.match_info["id"]
        try:
            await self._device_claims.release(claims.owner, device_id)
        except NoSuchDeviceError as error:
            raise no_such_device() from error
        except NotClaimedError as error:
            raise Problem(409, "This device is not claimed.", code="not_claimed") from error
        self._audit.device_ended(request, "A claimed device was released.", claims.owner, device_id)
        return web.Response(status=204)


def _refused(
    error: ClaimRefusedError | ClaimedError | NameTakenError | TooManyClaimsError | TooManyDevicesError,
) -> Problem:
    match error:
        case ClaimRefusedError(reason="expired_key"):
            return unauthorized("The provisioning key has expired.", code="expired", challenge="Bearer")
        case ClaimRefusedError():
            return unauthorized("The provisioning key is not valid.", challenge="Bearer")
        case ClaimedError():
            return Problem(409, "This device is claimed with another secret.", code="claimed")
        case NameTakenError():
            return Problem(409, "The owner has registered a device with this name.", code="taken")
        case TooManyClaimsError(limit=limit):
            detail, code = f"{limit} devices may be claimed with this key.", "too_many_claims"
        case TooManyDevicesError(limit=limit):
            detail, code = f"One owner may have {limit} devices.", "too_many_devices"
    return Problem(403, detail, code=code, extra={"limit": limit})
