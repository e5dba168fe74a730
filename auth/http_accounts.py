"""`/user/signup` and `/user/login`: from people to accounts, and back with a session."""

from aiohttp import web

from auth.accounts import Accounts
from auth.audit import Audit
from auth.bearer import unauthorized
from auth.bodies import LogIn, SessionAnswer, SignUp, UserAnswer
from auth.errors import EmailTakenError, WrongCredentialsError
from auth.fields import read_fields
from auth.passwords import password_error
from auth.sessions import Sessions
from runtime.bodies import json_response
from runtime.problems import Problem


class AccountRoutes:
    """The calls of people without a token."""

    def __init__(self, accounts: Accounts, sessions: Sessions, audit: Audit, *, signup_open: bool) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._audit = audit
        self._signup_open = signup_open

    def routes(self) -> list[web.RouteDef]:
        """Return what to add to an application."""
        return [web.post("/user/signup", self._sign_up), web.post("/user/login", self._log_in)]

    async def _sign_up(self, request: web.Request) -> web.Response:
        if not self._signup_open:
            self._audit.sign_up_refused(request, "closed")
            raise Problem(403, "This server takes no sign-ups; ask its operator.", code="signup_closed")
        body = await read_fields(request, SignUp)
        if wrong := password_error(body.password):
            raise Problem(422, "The password cannot be used.", errors=(wrong,))
        try:
            user = await self._accounts.sign_up(body.name, body.email, body.password)
        except EmailTakenError as error:
            self._audit.sign_up_refused(request, "taken")
            raise Problem(409, "This e-mail address has an account.", code="taken") from error
        self._audit.signed_up(request, user)
        return json_response(UserAnswer.of(user), status=201)

    async def _log_in(self, request: web.Request) -> web.Response:
        body = await read_fields(request, LogIn)
        try:
            user = await self._accounts.log_in(body.email, body.password)
        except WrongCredentialsError as error:
            self._audit.log_in_failed(request, error)
            raise unauthorized("E-mail address or password is wrong.", challenge="Bearer") from error
        session = await self._sessions.begin(user)
        self._audit.logged_in(request, user, session.access)
        return json_response(SessionAnswer.of(session))
