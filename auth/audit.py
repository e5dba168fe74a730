"""The audit log: one line and one count for each security event, with the user, the object and the client's address.

No line carries a password, a token, or the e-mail of a failed log-in (people type passwords into that field).
"""

from collections.abc import Sequence
from typing import Literal

from aiohttp import web

from access.claims import Claims
from auth.accounts import User
from auth.device_claims import Claim, Claimed, ClaimKey
from auth.device_import import Imported
from auth.devices import Device
from auth.errors import NoSuchUserError, RefreshError, WrongCredentialsError
from auth.metrics import AuthMetrics
from auth.provisioning import ProvisioningKey
from auth.tokens.issuer import IssuedToken, NewApiKey
from runtime.http.addresses import ClientAddresses
from runtime.logs import logger

log = logger("auth.audit")


class AuditLog:
    """Records security events."""

    def __init__(self, metrics: AuthMetrics, addresses: ClientAddresses) -> None:
        self._metrics = metrics
        self._addresses = addresses

    def signed_up(self, request: web.Request, user: User) -> None:
        """Record a new account."""
        self._metrics.signups.labels("created").inc()
        log.info("A user signed up.", user=user.id, address=self._addresses.of(request))

    def sign_up_refused(self, request: web.Request, outcome: str) -> None:
        """Record a refused sign-up: `taken` (the address has an account) or `closed`."""
        self._metrics.signups.labels(outcome).inc()
        log.info("A sign-up was refused.", outcome=outcome, address=self._addresses.of(request))

    def logged_in(self, request: web.Request, user: User, access: IssuedToken) -> None:
        """Record a log-in and its access token."""
        self._metrics.logins.labels("ok").inc()
        log.info("A user logged in.", user=user.id, sid=access.claims.sid, address=self._addresses.of(request))
        self.token_issued(request, access, by=user.id)

    def log_in_failed(self, request: web.Request, error: WrongCredentialsError | NoSuchUserError) -> None:
        """Record a log-in with wrong credentials; `user` is logged as None if there is no such account."""
        self._metrics.logins.labels("failed").inc()
        user, reason = (error.user_id, error.reason) if isinstance(error, WrongCredentialsError) else (None, "deleted")
        log.warning("A log-in failed.", user=user, reason=reason, address=self._addresses.of(request))

    def refreshed(self, request: web.Request, user: User, access: IssuedToken) -> None:
        """Record a refresh and its access token."""
        self._metrics.refreshes.labels("ok").inc()
        self.token_issued(request, access, by=user.id)

    def refresh_refused(self, request: web.Request, error: RefreshError | NoSuchUserError) -> None:
        """Record a refused refresh token; a used one has ended its session, unless it was a race."""
        address = self._addresses.of(request)
        if isinstance(error, RefreshError) and error.reason == "raced":
            self._metrics.refreshes.labels("raced").inc()
            log.info(
                "A refresh token came twice at once from one client; its session goes on.",
                user=error.user_id,
                sid=error.sid,
                address=address,
            )
            return
        if isinstance(error, RefreshError) and error.reason == "reused":
            self._metrics.refreshes.labels("reused").inc()
            self._metrics.endings.labels("reuse").inc()
            log.warning(
                "A used refresh token came again; its session was ended.",
                user=error.user_id,
                sid=error.sid,
                address=address,
            )
            return
        self._metrics.refreshes.labels("refused").inc()
        reason = error.reason if isinstance(error, RefreshError) else "deleted"
        user = error.user_id if isinstance(error, RefreshError) else None
        log.warning("A refresh was refused.", user=user, reason=reason, address=address)

    def logged_out(self, request: web.Request, user_id: str, sids: Sequence[str]) -> None:
        """Record sessions that their user ended."""
        self._metrics.endings.labels("logout").inc(len(sids))
        log.info("A user logged out.", user=user_id, sids=list(sids), address=self._addresses.of(request))

    def account_changed(self, request: web.Request, user_id: str, *, password: bool, keys_ended: int) -> None:
        """Record a change of name or password; a new password has ended all sessions, and some or no API keys."""
        if password:
            self._metrics.endings.labels("password").inc()
        log.info(
            "An account was changed.",
            user=user_id,
            password=password,
            keys_ended=keys_ended,
            address=self._addresses.of(request),
        )

    def account_deleted(self, request: web.Request, user_id: str) -> None:
        """Record the deletion of an account."""
        self._metrics.endings.labels("account").inc()
        log.info("An account was deleted.", user=user_id, address=self._addresses.of(request))

    def key_created(self, request: web.Request, new: NewApiKey, issued: IssuedToken) -> None:
        """Record a new API key, and what it permits."""
        log.info(
            "An API key was made.",
            user=issued.claims.owner,
            key=issued.claims.jti,
            name=new.name,
            scope=new.scope,
            devices=None if new.devices is None else list(new.devices),
            address=self._addresses.of(request),
        )
        self.token_issued(request, issued, by=issued.claims.owner)

    def key_deleted(self, request: web.Request, user_id: str, key_id: str) -> None:
        """Record the end of an API key."""
        self._metrics.endings.labels("key").inc()
        log.info("An API key was deleted.", user=user_id, key=key_id, address=self._addresses.of(request))

    def device_changed(self, request: web.Request, user_id: str, device_id: str) -> None:
        """Record a change of a device's registration."""
        log.info("A device was changed.", user=user_id, device=device_id, address=self._addresses.of(request))

    def device_ended(self, request: web.Request, event: str, user_id: str, device_id: str) -> None:
        """Record the removal of a device, or the revocation of its tokens; `event` is the log line."""
        self._metrics.endings.labels("device").inc()
        log.info(event, user=user_id, device=device_id, address=self._addresses.of(request))

    def device_registered(self, request: web.Request, device: Device) -> None:
        """Record a new device."""
        self._metrics.devices.inc()
        log.info(
            "A device was registered.",
            user=device.owner_id,
            device=device.id,
            name=device.name,
            address=self._addresses.of(request),
        )

    def devices_imported(
        self, request: web.Request, claims: Claims, imported: Sequence[Imported], issued: Sequence[IssuedToken] | None
    ) -> None:
        """Record a chunk of an import: new devices, and those that got a token; one line, and none without either."""
        new = [one.device.id for one in imported if one.is_new]
        self._metrics.devices.inc(len(new))
        self._metrics.tokens.labels("device").inc(len(issued or ()))
        if new or issued:
            log.info(
                "Devices were imported.",
                user=claims.owner,
                by=claims.holder,
                registered=new,
                tokens_of=[one.claims.sub for one in issued or ()],
                address=self._addresses.of(request),
            )

    def provisioning_key_created(self, request: web.Request, user_id: str, key: ProvisioningKey) -> None:
        """Record a new provisioning key, and what it permits."""
        log.info(
            "A provisioning key was made.",
            user=user_id,
            provisioning_key=key.id,
            name=key.name,
            max_devices=key.max_devices,
            expires_at_ms=key.expires_at_ms,
            address=self._addresses.of(request),
        )

    def provisioning_key_deleted(self, request: web.Request, user_id: str, key_id: str) -> None:
        """Record the end of a provisioning key."""
        address = self._addresses.of(request)
        log.info("A provisioning key was deleted.", user=user_id, provisioning_key=key_id, address=address)

    def device_claimed(self, request: web.Request, key: ClaimKey, claimed: Claimed, issued: IssuedToken) -> None:
        """Record a claim, new or repeated, and the token."""
        self._metrics.claims.labels("new" if claimed.is_new else "repeated").inc()
        if claimed.is_new:
            self._metrics.devices.inc()
        log.info(
            "A device was claimed." if claimed.is_new else "A device claimed itself again.",
            user=key.owner_id,
            provisioning_key=key.id,
            device=claimed.device.id,
            name=claimed.device.name,
            address=self._addresses.of(request),
        )
        self.token_issued(request, issued, by=claimed.device.id)

    def claim_refused(self, request: web.Request, claim: Claim, key: ClaimKey | None, reason: str) -> None:
        """Record a refused claim; `key` is None if there is none. `claimed`: somebody has the id and another secret."""
        self._metrics.claims.labels("claimed" if reason == "claimed" else "refused").inc()
        log.warning(
            "A claim was refused.",
            reason=reason,
            hardware_id=claim.hardware_id,
            user=None if key is None else key.owner_id,
            provisioning_key=None if key is None else key.id,
            address=self._addresses.of(request),
        )

    def command_sent(
        self,
        request: web.Request,
        claims: Claims,
        device_id: str,
        name: str,
        outcome: Literal["done", "failed", "timeout", "offline", "kept", "refused"],
        command_id: str | None = None,
    ) -> None:
        """Record a command and what its sender was told; its payload and result are never logged."""
        self._metrics.commands.labels(outcome).inc()
        log.info(
            "A command was sent." if outcome not in ("offline", "refused") else "A command was not sent.",
            user=claims.owner,
            by=claims.holder,
            device=device_id,
            command=command_id,
            name=name,
            outcome=outcome,
            address=self._addresses.of(request),
        )

    def token_issued(self, request: web.Request, issued: IssuedToken, *, by: str) -> None:
        """Record an issued JWT; `by` is the id of the user, device or API key that requested it."""
        claims = issued.claims
        kind = "device" if claims.device is not None else "user" if claims.key is None else "key"
        self._metrics.tokens.labels(kind).inc()
        log.info(
            "A token was issued.",
            kind=kind,
            subject=claims.sub,
            user=claims.owner,
            jti=claims.jti,
            expires_at=claims.exp,
            by=by,
            address=self._addresses.of(request),
        )
