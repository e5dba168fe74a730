"""`/user/login`, `/user/refresh` and `/user/logout`: sessions begin, are renewed and end."""

from aiohttp import web

from access.bearer import unauthorized
from auth.accounts import Accounts
from auth.audit import AuditLog
from auth.errors import NoSuchUserError, RefreshError, WrongCredentialsError
from auth.http.authorizer import Authorizer, account_gone
from auth.http.bodies import LogIn, LogOut, Refresh, SessionAnswer
from auth.login_throttle import LoginThrottle
from auth.sessions import Sessions
from runtime.http.addresses import ClientAddresses, network_of
from runtime.http.bodies import json_response, read_json
from runtime.http.operation import Operation


class SessionRoutes:
    """The calls that begin, renew and end sessions."""

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        authorizer: Authorizer,
        throttle: LoginThrottle,
        audit: AuditLog,
        addresses: ClientAddresses,
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._authorizer = authorizer
        self._throttle = throttle
        self._audit = audit
        self._addresses = addresses

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="POST",
                path="/user/login",
                handler=self._log_in,
                tag="sessions",
                summary="Exchange e-mail address and password for tokens",
                body=LogIn,
                responses={200: SessionAnswer},
                problems=(401, 429),
            ),
            Operation(
                method="POST",
                path="/user/refresh",
                handler=self._refresh,
                tag="sessions",
                summary="Exchange a refresh token for new tokens",
                description="A refresh token can be used once. A second use ends its session, except within 10 s of "
                "the first, from the same network and with the same `User-Agent`: that is 401 with the code "
                "`refresh_used`, and the session goes on. Use the newer tokens if they are known (in another tab); "
                "otherwise send the same token again after 10 s, which ends the session, and log in.",
                body=Refresh,
                responses={200: SessionAnswer},
                problems=(401, 429),
            ),
            Operation(
                method="POST",
                path="/user/logout",
                handler=self._log_out,
                tag="sessions",
                summary="End a session",
                description="Ends the token's session, and that of `refreshToken` if it is another one of yours.",
                body=LogOut,
                body_required=False,
                responses={204: None},
                problems=(403,),
                secured=True,
            ),
        ]

    async def _log_in(self, request: web.Request) -> web.Response:
        body = await read_json(request, LogIn)
        with self._throttle.log_in(request, body.email) as attempt:
            try:
                user = await self._accounts.log_in(body.email, body.password, recheck=attempt.check)
                session = await self._sessions.begin(user)
            except (WrongCredentialsError, NoSuchUserError) as error:
                attempt.failed()
                self._audit.log_in_failed(request, error)
                raise unauthorized("E-mail address or password is wrong.", challenge="Bearer") from error
        self._audit.logged_in(request, user, session.access)
        return json_response(SessionAnswer.of(session))

    async def _refresh(self, request: web.Request) -> web.Response:
        body = await read_json(request, Refresh)
        with self._throttle.refresh(request) as attempt:
            try:
                network = network_of(self._addresses.of(request))
                user_agent = request.headers.get("User-Agent", "")
                user, session = await self._sessions.refresh(body.refresh_token, network=network, user_agent=user_agent)
            except RefreshError as error:
                self._audit.refresh_refused(request, error)
                if error.reason == "raced":  # no guess: the client has had the token
                    detail = "The refresh token has just been used; use the tokens of that response."
                    raise unauthorized(detail, code="refresh_used") from error
                attempt.failed()
                raise unauthorized("The refresh token is not valid; log in again.") from error
            except NoSuchUserError as error:
                attempt.failed()
                self._audit.refresh_refused(request, error)
                raise unauthorized("The refresh token is not valid; log in again.") from error
        self._audit.refreshed(request, user, session.access)
        return json_response(SessionAnswer.of(session))

    async def _log_out(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        body = await read_json(request, LogOut) if request.can_read_body else LogOut()
        try:
            ended = await self._sessions.end(claims.sub, claims.sid or "", body.refresh_token or None)
        except NoSuchUserError as error:
            raise account_gone() from error
        self._audit.logged_out(request, claims.sub, ended)
        return web.Response(status=204)
