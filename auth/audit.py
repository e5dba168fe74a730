"""What happened to accounts and tokens: one log line and one count each, with who, what and from where.

No line carries a password, a token, or the e-mail of a failed log-in (people type passwords into that field).
"""

from collections.abc import Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from auth.accounts import User
from auth.devices import Device
from auth.errors import NoSuchUserError, RefreshError, WrongCredentialsError
from auth.tokens.issuer import Issued
from runtime.http.addresses import ClientAddresses
from runtime.logs import logger
from runtime.metrics import preset_labels

log = logger("auth.audit")


class Audit:
    """The record of security events."""

    def __init__(self, registry: CollectorRegistry, addresses: ClientAddresses) -> None:
        self._addresses = addresses

        def counter(name: str, about: str, label: str, *values: str) -> Counter:
            return preset_labels(Counter(f"tidegate_auth_{name}_total", about, [label], registry=registry), *values)

        self._signups = counter("signups", "Sign-ups.", "outcome", "created", "taken", "closed")
        self._logins = counter("logins", "Log-ins.", "outcome", "ok", "failed")
        self._refreshes = counter("refreshes", "Refreshes.", "outcome", "ok", "refused", "raced", "reused")
        what = ("logout", "reuse", "password", "account", "device")
        self._endings = counter("endings", "What ended tokens.", "what", *what)
        self._tokens = counter("tokens_issued", "JWTs issued.", "kind", "user", "device")
        self._devices = Counter("tidegate_auth_devices_registered_total", "Devices registered.", registry=registry)

    def signed_up(self, request: web.Request, user: User) -> None:
        """Record a new account."""
        self._signups.labels("created").inc()
        log.info("A user signed up.", user=user.id, address=self._addresses.of(request))

    def sign_up_refused(self, request: web.Request, outcome: str) -> None:
        """Record a sign-up that was `taken` or `closed`."""
        self._signups.labels(outcome).inc()
        log.info("A sign-up was refused.", outcome=outcome, address=self._addresses.of(request))

    def logged_in(self, request: web.Request, user: User, access: Issued) -> None:
        """Record a log-in and its access token."""
        self._logins.labels("ok").inc()
        log.info("A user logged in.", user=user.id, sid=access.claims.sid, address=self._addresses.of(request))
        self.token_issued(request, access, by=user.id)

    def log_in_failed(self, request: web.Request, error: WrongCredentialsError | NoSuchUserError) -> None:
        """Record a log-in with wrong credentials; `user` is None when there is no such account."""
        self._logins.labels("failed").inc()
        user, reason = (error.user_id, error.reason) if isinstance(error, WrongCredentialsError) else (None, "deleted")
        log.warning("A log-in failed.", user=user, reason=reason, address=self._addresses.of(request))

    def refreshed(self, request: web.Request, user: User, access: Issued) -> None:
        """Record a refresh and its access token."""
        self._refreshes.labels("ok").inc()
        self.token_issued(request, access, by=user.id)

    def refresh_refused(self, request: web.Request, error: RefreshError | NoSuchUserError) -> None:
        """Record a refresh token that does not serve; a used one has ended its session, unless it was a race."""
        address = self._addresses.of(request)
        if isinstance(error, RefreshError) and error.reason == "raced":
            self._refreshes.labels("raced").inc()
            log.info(
                "A refresh token came twice at once from one client; its session goes on.",
                user=error.user_id,
                sid=error.sid,
                address=address,
            )
            return
        if isinstance(error, RefreshError) and error.reason == "reused":
            self._refreshes.labels("reused").inc()
            self._endings.labels("reuse").inc()
            log.warning(
                "A used refresh token came again; its session was ended.",
                user=error.user_id,
                sid=error.sid,
                address=address,
            )
            return
        self._refreshes.labels("refused").inc()
        reason = error.reason if isinstance(error, RefreshError) else "deleted"
        user = error.user_id if isinstance(error, RefreshError) else None
        log.warning("A refresh was refused.", user=user, reason=reason, address=address)

    def logged_out(self, request: web.Request, user_id: str, sids: Sequence[str]) -> None:
        """Record the end of sessions that their user asked for."""
        self._endings.labels("logout").inc(len(sids))
        log.info("A user logged out.", user=user_id, sids=list(sids), address=self._addresses.of(request))

    def account_changed(self, request: web.Request, user_id: str, *, password: bool) -> None:
        """Record a change of name or password; a new password has ended all sessions."""
        if password:
            self._endings.labels("password").inc()
        log.info("An account was changed.", user=user_id, password=password, address=self._addresses.of(request))

    def account_deleted(self, request: web.Request, user_id: str) -> None:
        """Record the end of an account."""
        self._endings.labels("account").inc()
        log.info("An account was deleted.", user=user_id, address=self._addresses.of(request))

    def device_changed(self, request: web.Request, user_id: str, device_id: str) -> None:
        """Record a change of what is registered."""
        log.info("A device was changed.", user=user_id, device=device_id, address=self._addresses.of(request))

    def device_ended(self, request: web.Request, event: str, user_id: str, device_id: str) -> None:
        """Record the end of a device, or of its tokens."""
        self._endings.labels("device").inc()
        log.info(event, user=user_id, device=device_id, address=self._addresses.of(request))

    def device_registered(self, request: web.Request, device: Device) -> None:
        """Record a new device."""
        self._devices.inc()
        log.info(
            "A device was registered.",
            user=device.owner_id,
            device=device.id,
            name=device.name,
            address=self._addresses.of(request),
        )

    def token_issued(self, request: web.Request, issued: Issued, *, by: str) -> None:
        """Record a JWT: for whom, asked for by which user or device."""
        claims = issued.claims
        kind = "user" if claims.device is None else "device"
        self._tokens.labels(kind).inc()
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
