"""`/user/signup` and `/user/me`: users create, read, change and delete their own accounts."""

from aiohttp import web
from msgspec import UNSET

from auth.accounts import Accounts
from auth.audit import AuditLog
from auth.deletion_outbox import OwnerDeletionOutbox
from auth.errors import EmailTakenError, NoSuchUserError, WrongCredentialsError
from auth.http.authorizer import Authorizer, account_gone
from auth.http.bodies import ProfileChange, SignUp, UserAnswer
from auth.login_throttle import LoginThrottle
from auth.passwords import password_error
from runtime.http.bodies import json_response, read_json
from runtime.http.operation import Operation
from runtime.http.problems import FieldError, Problem, bad_body


class AccountRoutes:
    """The calls of users about their own accounts."""

    def __init__(
        self,
        accounts: Accounts,
        authorizer: Authorizer,
        throttle: LoginThrottle,
        deletions: OwnerDeletionOutbox,
        audit: AuditLog,
        *,
        signup_open: bool,
    ) -> None:
        self._accounts = accounts
        self._authorizer = authorizer
        self._throttle = throttle
        self._deletions = deletions
        self._audit = audit
        self._signup_open = signup_open

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="POST",
                path="/user/signup",
                handler=self._sign_up,
                tag="accounts",
                summary="Make an account",
                body=SignUp,
                responses={201: UserAnswer},
                problems=(403, 409, 429),
            ),
            Operation(
                method="GET",
                handler=self._show,
                summary="Show your account",
                responses={200: UserAnswer},
                problems=(403,),
                path="/user/me",
                tag="accounts",
                secured=True,
            ),
            Operation(
                method="PATCH",
                handler=self._change,
                summary="Change your name or password",
                description="A new password needs `currentPassword` and ends every session, this one included. API "
                "keys go on working, as devices do; with `endKeys` they end, too, and so does what they issued.",
                body=ProfileChange,
                responses={200: UserAnswer},
                problems=(403, 429),
                path="/user/me",
                tag="accounts",
                secured=True,
            ),
            Operation(
                method="DELETE",
                handler=self._delete,
                summary="Delete your account",
                description="Devices and tokens go at once, all readings soon after.",
                responses={204: None},
                problems=(403,),
                path="/user/me",
                tag="accounts",
                secured=True,
            ),
        ]

    async def _sign_up(self, request: web.Request) -> web.Response:
        if not self._signup_open:
            self._audit.sign_up_refused(request, "closed")
            raise Problem(403, "Sign-up is closed on this server; ask its operator.", code="signup_closed")
        body = await read_json(request, SignUp)
        if invalid := password_error(body.password, (body.name, body.email)):
            raise Problem(422, "The password cannot be used.", errors=(invalid,))
        self._throttle.sign_up(request)
        try:
            user = await self._accounts.create(body.name, body.email, body.password)
        except EmailTakenError as error:
            self._audit.sign_up_refused(request, "taken")
            raise Problem(409, "This e-mail address has an account.", code="taken") from error
        self._audit.signed_up(request, user)
        return json_response(UserAnswer.of(user), status=201)

    async def _show(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        return await self._answer(claims.sub)

    async def _change(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        body = await read_json(request, ProfileChange)
        if body.name is UNSET and body.password is UNSET:
            raise bad_body("Give a name, or a password and the current one.", status=422)
        if body.end_keys and body.password is UNSET:
            alone = FieldError("endKeys", "invalid", "This takes a new password.")
            raise Problem(422, alone.message, errors=(alone,))
        try:
            if body.password is not UNSET:
                await self._check_passwords(request, claims.sub, body, body.password)
            keys_ended = await self._accounts.change(
                claims.sub, name=body.name or None, password=body.password or None, end_keys=body.end_keys
            )
        except NoSuchUserError as error:
            raise account_gone() from error
        self._audit.account_changed(request, claims.sub, password=body.password is not UNSET, keys_ended=keys_ended)
        return await self._answer(claims.sub)

    async def _check_passwords(self, request: web.Request, user_id: str, body: ProfileChange, password: str) -> None:
        if not body.current_password:
            missing = FieldError("currentPassword", "missing", "A new password needs the current one.")
            raise Problem(422, missing.message, errors=(missing,))
        user = await self._accounts.find(user_id)
        if invalid := password_error(password, (body.name or user.name, user.email)):
            raise Problem(422, "The password cannot be used.", errors=(invalid,))
        with self._throttle.log_in(request, user.email) as attempt:
            try:
                await self._accounts.confirm(user_id, body.current_password, recheck=attempt.check)
            except WrongCredentialsError as error:
                attempt.failed()
                self._audit.log_in_failed(request, error)
                raise Problem(403, "The current password is wrong.", code="wrong_password") from error

    async def _delete(self, request: web.Request) -> web.Response:
        claims = await self._authorizer.user(request)
        try:
            await self._accounts.delete(claims.sub)
        except NoSuchUserError as error:
            raise account_gone() from error
        self._deletions.wake()
        self._audit.account_deleted(request, claims.sub)
        return web.Response(status=204)

    async def _answer(self, user_id: str) -> web.Response:
        try:
            return json_response(UserAnswer.of(await self._accounts.find(user_id)))
        except NoSuchUserError as error:
            raise account_gone() from error
