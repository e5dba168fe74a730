"""A rule as its owner writes it, and as it is stored: what it watches, when it holds, whom it notifies."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, UnsetType

from alarms.rules.message import PLACEHOLDERS, unknown_placeholders
from alarms.rules.schedule import Day, minute_of
from broker.alarms import Severity
from readings.reading import Value
from runtime.http.fields import ONE_LINE, ONE_LINE_RULE, Body, convert_body
from runtime.http.problems import FieldError, Problem
from runtime.http.wording import rule as in_words
from runtime.time_zones import UnknownZone, time_zone

Op = Literal["above", "below", "outside", "equals", "changed", "rate", "silent", "gap"]
# A week: longer, and a restart of the device would end what it waits for.
MAX_FOR_S = 7 * 86_400
# Shorter silences are how networks are.
MIN_SILENCE_S = 1
MAX_IDS = 1000
MAX_NOTIFY = 10
# As it is stored, in bytes of JSON: what MySQL's TEXT takes.
MAX_STORED = 65_535
_NUMBERS = ("above", "below", "rate")
_WITH_HYSTERESIS = ("above", "below", "outside")

_Name = r"^[A-Za-z0-9_.:-]+$(?!\n)"
DeviceId = Annotated[
    str, Meta(min_length=1, max_length=64, pattern=_Name, extra=in_words("made of A-Z a-z 0-9 _ . : - only"))
]
SensorType = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=_Name,
        extra=in_words("made of A-Z a-z 0-9 _ . : - only"),
        examples=["temperature"],
    ),
]
DevicePattern = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9_.:*-]+$(?!\n)",
        extra=in_words("a name, made of A-Z a-z 0-9 _ . : - and * for any of them"),
        examples=["press-*"],
    ),
]
RuleName = Annotated[str, Meta(min_length=1, max_length=100, pattern=ONE_LINE, extra=ONE_LINE_RULE)]
MessageText = Annotated[str, Meta(min_length=1, max_length=500, pattern=ONE_LINE, extra=ONE_LINE_RULE)]
Url = Annotated[str, Meta(min_length=1, max_length=2000, examples=["https://example.org/hooks/tidegate"])]
ForSeconds = Annotated[float, Meta(ge=0, le=MAX_FOR_S)]


class Devices(Body):
    """The devices of a rule: some by id, or all whose name has a form. `*` stands for any characters."""

    ids: Annotated[list[DeviceId], Meta(min_length=1, max_length=MAX_IDS)] | UnsetType = UNSET
    name: DevicePattern | UnsetType = UNSET


class When(Body):
    """When a rule holds; docs/alarms.md says which operation takes which fields."""

    op: Op
    value: Value | UnsetType = UNSET
    low: float | UnsetType = UNSET
    high: float | UnsetType = UNSET
    per_seconds: Annotated[float, Meta(gt=0, le=86_400)] | UnsetType = UNSET


class Hours(Body):
    """Days of the week, and a span of the local time of a zone; it may go on past midnight."""

    zone: str
    days: Annotated[list[Day], Meta(min_length=1, max_length=7)]
    from_: str = msgspec.field(name="from")
    to: str


class Notify(Body):
    """Whom an alarm is told: a webhook, the e-mail address of the account, or the live feed."""

    kind: Literal["webhook", "email", "feed"]
    url: Url | UnsetType = UNSET


class RuleDefinition(Body, kw_only=True):
    """Body of `POST /alarms/rules`."""

    name: RuleName
    severity: Severity = "warning"
    devices: Devices | Literal["all"]
    sensor_type: SensorType
    when: When
    for_seconds: ForSeconds = 0
    hysteresis: Annotated[float, Meta(ge=0)] = 0
    schedule: Hours | None = None
    notify: Annotated[list[Notify], Meta(max_length=MAX_NOTIFY)] = msgspec.field(default_factory=list)
    message: MessageText | None = None

    @property
    def webhooks(self) -> list[str]:
        """The URLs that are called."""
        return [one.url for one in self.notify if one.kind == "webhook" and isinstance(one.url, str)]

    @property
    def has_email(self) -> bool:
        """Whether the account's address is mailed to."""
        return any(one.kind == "email" for one in self.notify)


def checked_definition(given: object) -> RuleDefinition:
    """Convert parsed JSON to a definition that makes sense; Problem 422 that names every wrong field."""
    definition = convert_body(given, RuleDefinition)
    if errors := tuple(_errors(definition)):
        raise Problem(422, "The rule does not make sense as it is.", errors=errors)
    return definition


def changed_definition(stored: bytes, changes: object) -> RuleDefinition:
    """Return a stored definition with changes: fields as they are given, `null` for the default; Problem 422."""
    if not isinstance(changes, dict):
        return checked_definition(changes)
    merged = {**msgspec.json.decode(stored, type=dict[str, object]), **changes}
    optional = {field.encode_name for field in msgspec.structs.fields(RuleDefinition) if not field.required}
    return checked_definition({name: one for name, one in merged.items() if one is not None or name not in optional})


def _errors(rule: RuleDefinition) -> Iterator[FieldError]:
    yield from _errors_of_devices(rule.devices)
    yield from _errors_of_when(rule.when)
    if len(msgspec.json.encode(rule)) > MAX_STORED:
        yield FieldError("devices", "invalid", "The rule is too large: name fewer devices.")
    yield from _errors_of_hysteresis(rule.when, rule.hysteresis)
    if rule.when.op == "silent" and rule.for_seconds < MIN_SILENCE_S:
        yield FieldError("forSeconds", "missing", "A silence needs the seconds after which it counts.")
    if rule.schedule is not None:
        yield from _errors_of_hours(rule.schedule)
    for index, one in enumerate(rule.notify):
        yield from _errors_of_notify(f"notify[{index}]", one)
    for index, one in enumerate(rule.notify):
        if one in rule.notify[:index]:
            yield FieldError(f"notify[{index}]", "repeated", "This is told already: once is enough.")
    if rule.message is not None and (unknown := unknown_placeholders(rule.message)):
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        yield FieldError("message", "invalid", f"There is no {{{unknown[0][:20]}}}; there are {known}.")


def _errors_of_devices(devices: Devices | str) -> Iterator[FieldError]:
    if isinstance(devices, Devices) and (devices.ids is UNSET) == (devices.name is UNSET):
        yield FieldError("devices", "invalid", 'This must be {"ids": […]}, {"name": …} or "all".')


def _errors_of_when(when: When) -> Iterator[FieldError]:
    wanted: dict[str, tuple[str, ...]] = {
        "above": ("value",),
        "below": ("value",),
        "equals": ("value",),
        "rate": ("value", "perSeconds"),
        "outside": ("low", "high"),
    }
    takes = wanted.get(when.op, ())
    given = {"value": when.value, "low": when.low, "high": when.high, "perSeconds": when.per_seconds}
    for name, value in given.items():
        if value is UNSET and name in takes:
            yield FieldError(f"when.{name}", "missing", f"{when.op} needs this field.")
        if value is not UNSET and name not in takes:
            yield FieldError(f"when.{name}", "invalid", f"{when.op} does not take this field.")
    must_be_number = when.op in _NUMBERS and when.value is not UNSET
    if (must_be_number or type(when.value) in (int, float)) and not _is_number(when.value):
        yield FieldError("when.value", "invalid", "This must be a finite number.")
    if isinstance(when.value, str) and len(when.value) > 256:
        yield FieldError("when.value", "invalid", "No reading has a text of more than 256 characters.")
    if when.op == "outside" and isinstance(when.low, float) and isinstance(when.high, float) and when.low > when.high:
        yield FieldError("when.high", "invalid", "This must be at least `low`.")


def _errors_of_hysteresis(when: When, hysteresis: float) -> Iterator[FieldError]:
    if hysteresis and when.op not in _WITH_HYSTERESIS:
        yield FieldError("hysteresis", "invalid", "Only above, below and outside have a hysteresis.")
    if when.op == "outside" and isinstance(when.low, float) and isinstance(when.high, float):
        is_endless = when.low + hysteresis > when.high - hysteresis
        if hysteresis and is_endless and when.low <= when.high:
            yield FieldError("hysteresis", "invalid", "This must be at most half of what is between `low` and `high`.")


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _errors_of_hours(hours: Hours) -> Iterator[FieldError]:
    try:
        time_zone(hours.zone)
    except UnknownZone:
        yield FieldError("schedule.zone", "invalid", "There is no time zone of this name, as in Europe/Berlin.")
    for name, text in (("from", hours.from_), ("to", hours.to)):
        try:
            minute_of(text)
        except ValueError:
            yield FieldError(f"schedule.{name}", "invalid", "This must be a time of day, from 00:00 to 24:00.")


def _errors_of_notify(place: str, one: Notify) -> Iterator[FieldError]:
    if one.kind != "webhook":
        if one.url is not UNSET:
            yield FieldError(f"{place}.url", "invalid", "Only a webhook has an address.")
        return
    if one.url is UNSET:
        yield FieldError(f"{place}.url", "missing", "A webhook needs an address.")
        return
    try:
        parts = urlsplit(one.url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        yield FieldError(f"{place}.url", "invalid", "This is no address.")
        return
    if parts.scheme not in ("https", "http") or not parts.hostname or not port_is_fine or parts.fragment:
        yield FieldError(f"{place}.url", "invalid", "This must be an address that begins with https:// or http://.")
    elif parts.username is not None or parts.password is not None:
        yield FieldError(f"{place}.url", "invalid", "Names and passwords in addresses end up in logs.")
    elif any(not char.isprintable() or char.isspace() for char in one.url) or not one.url.isascii():
        yield FieldError(f"{place}.url", "invalid", "This must be ASCII, without spaces (a domain as xn--…).")
