"""`/alarms/rules`: owners make, try, change and remove rules."""

from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from access.bearer import required_token
from access.claims import Verified
from alarms.http.email import EmailRoutes, account_gone
from alarms.http.guard import AlarmsGuard
from alarms.http.rule_bodies import RuleAnswer, RulesAnswer, RulesQuery, SecretAnswer, TrialAnswer
from alarms.rules.book import RuleBook
from alarms.rules.definition import RuleDefinition, changed_definition, checked_definition
from alarms.rules.devices import DeviceNames
from alarms.rules.rule import rule_of
from alarms.rules.store import (
    MAX_REMOVED,
    MAX_RULES,
    NoSuchOwnerError,
    NoSuchRuleError,
    RuleChangedError,
    RuleStore,
    TooManyRulesError,
)
from alarms.rules.trial import Trials
from alarms.webhooks.secrets import Secrets
from alarms.webhooks.signature import new_secret
from broker.alarms import Watches, encode_watches
from database.connection import Database
from database.ids import is_id
from runtime.http.bodies import json_response, read_json
from runtime.http.fields import read_query
from runtime.http.operation import Operation
from runtime.http.problems import Problem
from runtime.times import now_ms


class WatchedQuery(msgspec.Struct):
    """Query of `GET /alarms/watched`: the cursor of an earlier response."""

    since: str | msgspec.UnsetType = UNSET


class RuleRoutes:
    """The calls about rules; without `trials`, for want of a reader, rules cannot be tried."""

    def __init__(
        self,
        store: RuleStore,
        book: RuleBook,
        guard: AlarmsGuard,
        emails: EmailRoutes,
        secrets: Secrets,
        database: Database,
        trials: Trials | None,
    ) -> None:
        self._store = store
        self._book = book
        self._guard = guard
        self._emails = emails
        self._secrets = secrets
        self._database = database
        self._trials = trials

    def calls(self) -> list[Operation]:
        """Return the declared calls."""
        return [
            Operation(
                method="POST",
                path="/alarms/rules",
                handler=self._create,
                tag="alarms",
                summary="Make a rule",
                description=f"At most {MAX_RULES} an owner: 429 with the code `too_many_rules`. It applies to readings "
                "that are stored from a few seconds later on. With a webhook, the answer has the `secret` that signs "
                "it, which is not shown again. With e-mail, 409 with the code `email_off` where this server does not "
                "mail, or `email_unconfirmed`. docs/alarms.md tells what the operations of `when` mean.",
                body=RuleDefinition,
                responses={201: RuleAnswer},
                problems=(403, 409, 429),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/alarms/rules",
                handler=self._list,
                tag="alarms",
                summary="List your rules, the oldest first",
                query=RulesQuery,
                responses={200: RulesAnswer},
                problems=(403,),
                secured=True,
            ),
            Operation(
                method="POST",
                path="/alarms/rules/test",
                handler=self._try,
                tag="alarms",
                summary="Try a rule on the last day",
                description="When it would have fired, in the readings of at most 100 series and a million readings; "
                "`complete` is false where there is more. Nothing is stored. The token needs `readings:read` as well.",
                body=RuleDefinition,
                responses={200: TrialAnswer},
                problems=(403,),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/alarms/rules/{id}",
                handler=self._get,
                tag="alarms",
                summary="Get a rule",
                responses={200: RuleAnswer},
                problems=(403, 404),
                secured=True,
            ),
            Operation(
                method="PATCH",
                path="/alarms/rules/{id}",
                handler=self._change,
                tag="alarms",
                summary="Change a rule",
                description="Fields that are given replace those of the rule; `null` is the default again. A rule that "
                "watches something else afterwards begins anew: its alarms end. With e-mail, 409 as where it is made.",
                body=RuleDefinition,
                responses={200: RuleAnswer},
                problems=(403, 404, 409),
                secured=True,
            ),
            Operation(
                method="DELETE",
                path="/alarms/rules/{id}",
                handler=self._remove,
                tag="alarms",
                summary="Remove a rule",
                description="Its alarms end. Their histories stay, and notifications that are due are still sent.",
                responses={204: None},
                problems=(403, 404),
                secured=True,
            ),
            Operation(
                method="POST",
                path="/alarms/rules/{id}/secret",
                handler=self._rotate,
                tag="alarms",
                summary="Replace the secret that signs a rule's webhooks",
                description="For a day, webhooks are signed with both.",
                responses={200: SecretAnswer},
                problems=(403, 404),
                secured=True,
            ),
            Operation(
                method="GET",
                path="/alarms/watched",
                handler=self._watched,
                tag="alarms",
                summary="What rules watch, for persisters",
                query=WatchedQuery,
                responses={200: Watches},
                internal=True,
            ),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        definition = checked_definition(await read_json(request, Any))
        await self._emails.require_confirmed(claims.owner, definition)
        secret = new_secret() if definition.webhooks else None
        sealed = None if secret is None else self._secrets.seal(claims.owner, secret)
        try:
            stored = await self._store.create(claims.owner, definition, sealed)
        except TooManyRulesError as error:
            detail = f"An owner may have {MAX_RULES} rules, and remove {MAX_REMOVED} a day."
            raise Problem(429, detail, code="too_many_rules", extra={"limit": MAX_RULES}) from error
        except NoSuchOwnerError as error:
            raise account_gone() from error
        self._guard.audit(request, claims, "A rule was made.", rule=stored.rule.id)
        return json_response(RuleAnswer.of(stored, secret), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        query = read_query(request, RulesQuery)
        found, cursor = await self._store.page(claims.owner, query.cursor or None, query.limit)
        return json_response(RulesAnswer([RuleAnswer.of(one) for one in found], cursor or UNSET))

    async def _get(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        try:
            return json_response(RuleAnswer.of(await self._store.find(claims.owner, _id(request))))
        except NoSuchRuleError as error:
            raise no_such_rule() from error

    async def _change(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        changes = await read_json(request, Any)
        rule_id = _id(request)
        answer: RuleAnswer | None = None
        while answer is None:
            try:
                answer = await self._changed(claims, rule_id, changes)
            except NoSuchRuleError as error:
                raise no_such_rule() from error
            except RuleChangedError:  # the fields of both calls count
                continue
        self._guard.audit(request, claims, "A rule was changed.", rule=rule_id)
        return json_response(answer)

    async def _changed(self, claims: Verified, rule_id: str, changes: Any) -> RuleAnswer:
        before = (await self._store.find(claims.owner, rule_id)).rule
        definition = changed_definition(msgspec.json.encode(before.definition), changes)
        await self._emails.require_confirmed(claims.owner, definition)
        sealed = self._secrets.seal(claims.owner, new_secret()) if definition.webhooks else None
        stored = await self._store.change(before, definition, sealed)
        return RuleAnswer.of(stored, self._shown_once(stored.sealed_secrets, sealed, claims))

    def _shown_once(self, stored: tuple[str, ...], sealed: str | None, claims: Verified) -> str | None:
        """Return the secret of a rule that got its first webhook with this change."""
        return self._secrets.open(claims.owner, sealed) if sealed is not None and sealed in stored else None

    async def _remove(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        try:
            await self._store.remove(claims.owner, _id(request))
        except NoSuchRuleError as error:
            raise no_such_rule() from error
        self._guard.audit(request, claims, "A rule was removed.", rule=_id(request))
        return web.Response(status=204)

    async def _rotate(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        secret = new_secret()
        try:
            await self._store.rotate_secret(claims.owner, _id(request), self._secrets.seal(claims.owner, secret))
        except NoSuchRuleError as error:
            raise no_such_rule() from error
        self._guard.audit(request, claims, "The secret of a rule's webhooks was replaced.", rule=_id(request))
        return json_response(SecretAnswer(secret))

    async def _try(self, request: web.Request) -> web.Response:
        claims = await self._guard.owner(request)
        definition = checked_definition(await read_json(request, Any))
        if self._trials is None:
            raise Problem(503, "Rules cannot be tried here: no reader is configured.", code="unavailable")
        names = DeviceNames(self._database)
        await names.refresh({claims.owner})
        rule = rule_of(claims.owner, "", 1, 0, definition)
        trial = await self._trials.run(rule, required_token(request), names.of_owner(claims.owner), now_ms())
        return json_response(TrialAnswer.of(trial))

    async def _watched(self, request: web.Request) -> web.Response:
        query = read_query(request, WatchedQuery)
        watches = await self._book.watches_after(query.since or None)
        return web.Response(body=encode_watches(watches), content_type="application/json")


def no_such_rule() -> Problem:
    """Return Problem 404."""
    return Problem(404, "There is no such rule.", code="not_found")


def _id(request: web.Request) -> str:
    rule_id = request.match_info["id"]
    if not is_id(rule_id):
        raise no_such_rule()
    return rule_id
