"""`/alarms/email`: whether notifications may go to the address of the account, and how its owner confirms it."""

import math
from contextlib import suppress
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from access.claims import Verified
from alarms.http.guard import AlarmsGuard
from alarms.mail.confirmations import (
    BETWEEN_CODES_MS,
    CODE_VALID_MS,
    MAX_CODES_A_DAY,
    MAX_WRONG_TRIES,
    AlreadyConfirmedError,
    CodeExpiredError,
    Confirmations,
    EmailStatus,
    TooManyCodesError,
    WrongCodeError,
)
from alarms.mail.mailer import Mailer
from alarms.mail.smtp_client import MailFailedError
from alarms.rules.definition import RuleDefinition
from alarms.rules.store import NoSuchOwnerError
from runtime.http.bodies import json_response, read_json
from runtime.http.fields import ONE_LINE, ONE_LINE_RULE, Body
from runtime.http.operation import Operation
from runtime.http.problems import FieldError, Problem
from runtime.times import TimeText, rfc3339

CODE_VALID_HOURS = CODE_VALID_MS // 3_600_000


class CodeBody(Body):
    """Body of `POST /alarms/email/confirm`: the code as it was mailed. Case, spaces and hyphens do not matter."""

    code: Annotated[str, Meta(min_length=1, max_length=64, pattern=ONE_LINE, extra=ONE_LINE_RULE)]


class EmailAnswer(msgspec.Struct, rename="camel"):
    """The address of the account. `available`: whether this server mails; `sentAt`: of a code that can be entered."""

    available: bool
    email: str
    confirmed: bool
    sent_at: TimeText | UnsetType = UNSET


class EmailRoutes:
    """The calls about the owner's address; without a mailer, as SMTP_URL is not set, nothing is confirmed."""

    def __init__(self, confirmations: Confirmations, mailer: Mailer | None, guard: AlarmsGuard) -> None:
        self._confirmations = confirmations
        self._mailer = mailer
        self._guard = guard

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="GET",
                path="/alarms/email",
                handler=self._show,
                tag="alarms",
                summary="Show whether notifications may go to your e-mail address",
                responses={200: EmailAnswer},
                problems=(403,),
                secured=True,
            ),
            Operation(
                method="POST",
                path="/alarms/email/confirmation",
                handler=self._send_code,
                tag="alarms",
                summary="Have a code mailed to your address, to confirm it",
                description=f"For users who have logged in, not API keys. At most one in {BETWEEN_CODES_MS // 1000} "
                f"seconds and {MAX_CODES_A_DAY} a day: 429 with Retry-After. The one before counts no more. 409 with "
                "the code `email_off` where this server does not mail, `already_confirmed`, or `email_refused` if the "
                "mail server does not take mail for this address; 503 with `email_failed` if it cannot be reached now.",
                responses={202: EmailAnswer},
                problems=(403, 409, 429),
                secured=True,
            ),
            Operation(
                method="POST",
                path="/alarms/email/confirm",
                handler=self._confirm,
                tag="alarms",
                summary="Confirm your address with the code",
                description=f"For users who have logged in, not for API keys. 422 with `wrong_code`, or with "
                f"`code_expired` after {CODE_VALID_HOURS} hours or {MAX_WRONG_TRIES} wrong tries: then another one has "
                "to be mailed. 409 with `email_off` where this server does not mail.",
                body=CodeBody,
                responses={200: EmailAnswer},
                problems=(403, 409),
                secured=True,
            ),
        ]

    async def require_confirmed(self, owner: str, definition: RuleDefinition) -> None:
        """Raise Problem 409 if a rule names e-mail, and none can be sent to its owner; 401 without the account."""
        if not definition.has_email:
            return
        self._require_mailer()
        if not (await self._status(owner)).is_confirmed:
            raise Problem(409, "Confirm your e-mail address first.", code="email_unconfirmed")

    async def _show(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        return self._answer(await self._status(claims.owner))

    async def _send_code(self, request: web.Request) -> web.Response:
        claims = await self._guard.session(request)
        mailer = self._require_mailer()
        try:
            address, code = await self._confirmations.new_code(claims.owner)
        except NoSuchOwnerError as error:
            raise account_gone() from error
        except AlreadyConfirmedError as error:
            raise Problem(409, "The address is confirmed already.", code="already_confirmed") from error
        except TooManyCodesError as error:
            seconds = math.ceil(error.retry_after_ms / 1000)
            detail = f"A code can be mailed again in {seconds} s."
            raise Problem(429, detail, code="rate_limited", headers={"Retry-After": str(seconds)}) from error
        await self._mail(mailer, claims, address, code)
        self._guard.audit(request, claims, "A code was mailed to confirm an e-mail address.")
        return self._answer(await self._status(claims.owner), status=202)

    async def _mail(self, mailer: Mailer, claims: Verified, address: str, code: str) -> None:
        try:
            await mailer.send_code(address, code, CODE_VALID_HOURS)
        except MailFailedError as error:
            if not error.is_answered:
                with suppress(NoSuchOwnerError):
                    await self._confirmations.not_mailed(claims.owner)
            if error.is_final:
                detail = "The mail server takes no mail for this address."
                raise Problem(409, detail, code="email_refused") from error
            headers = {"Retry-After": str(BETWEEN_CODES_MS // 1000)}
            raise Problem(
                503, "The code could not be mailed; try again.", code="email_failed", headers=headers
            ) from error

    async def _confirm(self, request: web.Request) -> web.Response:
        claims = await self._guard.session(request)
        body = await read_json(request, CodeBody)
        self._require_mailer()
        try:
            status = await self._confirmations.confirm(claims.owner, body.code)
        except NoSuchOwnerError as error:
            raise account_gone() from error
        except CodeExpiredError as error:
            raise _refused(
                "code_expired", "There is no code that could be entered: have another one mailed."
            ) from error
        except WrongCodeError as error:
            self._guard.audit(request, claims, "A wrong code was entered for an e-mail address.")
            left = f"{error.tries_left} tries are left." if error.tries_left else "Have another one mailed."
            raise _refused("wrong_code", f"This is not the code that was mailed last. {left}") from error
        self._guard.audit(request, claims, "An e-mail address was confirmed.")
        return self._answer(status)

    async def _status(self, owner: str) -> EmailStatus:
        try:
            return await self._confirmations.status(owner)
        except NoSuchOwnerError as error:
            raise account_gone() from error

    def _require_mailer(self) -> Mailer:
        if self._mailer is None:
            raise Problem(409, "This server sends no e-mail; there are webhook and feed.", code="email_off")
        return self._mailer

    def _answer(self, found: EmailStatus, status: int = 200) -> web.Response:
        sent_at = UNSET if found.sent_at_ms is None else rfc3339(found.sent_at_ms)
        available = self._mailer is not None
        return json_response(EmailAnswer(available, found.address, found.is_confirmed, sent_at), status)


def account_gone() -> Problem:
    """Return Problem 401."""
    return Problem(401, "The account is deleted.", code="revoked")


def _refused(code: str, detail: str) -> Problem:
    return Problem(422, detail, code=code, errors=(FieldError("code", "invalid", detail),))
