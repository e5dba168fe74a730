"""Settings: environment variables, read once at the start into one frozen dataclass per service.

A field `max_batch` is read from `MAX_BATCH`; an empty variable counts as unset. msgspec checks types and limits
(`Annotated[int, msgspec.Meta(ge=1)]`); lists are separated by commas. Before anything starts, every wrong variable is
reported with its value, unless it is a secret. `unread` finds variables that look like settings but are not.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from runtime.http.wording import in_words
from runtime.variables import VARIABLES

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]  # "inf" is a float too, but no timer accepts it

REQUIRED = "required"

# Prefixes that only our processes use. AUTH_ and BROKER_ are also used by other programs, so they count only if the
# rest of the name is a setting.
_FAMILIES = ("GATEWAY_", "PERSISTER_", "READER_", "SIMULATOR_", "ONEBOX_", "TIDEGATE_")
_SHARED_FAMILIES = ("AUTH_", "BROKER_")
# Shorter names are too close to unrelated words: PORT and PATH, HOST and COST.
_SHORTEST_MISSPELT = 6
# difflib's ratio for one letter or underscore too many or too few. Other programs' variables are below it: REDIS_URL
# has 0.857 to READINGS_URL, DATABASE_URL 0.83 to AUTH_DATABASE_URL.
_CLOSE = 0.86
# Variables that Kubernetes sets for every Service of a namespace: https://kubernetes.io/docs/concepts/services-networking/service/
# (Environment variables), in the form of Docker's links.
_LINK = re.compile(r".+_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*", re.DOTALL)

Loaded = TypeVar("Loaded")


class SettingsError(Exception):
    """One or more variables are missing or wrong; the message has a line for each."""


def setting(default: Any = MISSING, *, about: str, secret: bool = False, unless: str = "") -> Any:
    """Declare a field with its default (without one it is required), its purpose, and whether its value is a secret.

    `unless` names another variable; this one is required only if that one is not set.
    """
    metadata = {"about": about, "secret": secret, "unless": unless}
    return field(default=default, repr=not secret, metadata=metadata)


def ops_port_setting(default: int) -> Any:
    """Declare `ops_port`, whose default differs between services."""
    return setting(default, about="port of `/healthz`, `/readyz`, `/metrics`; 0 takes any free one")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """The settings of every process."""

    log_level: Literal["debug", "info", "warning", "error"] = setting("info", about="lowest level that is logged")
    log_format: Literal["console", "json"] = setting("console", about="`console` for people, `json` for collectors")
    ops_host: str = setting("0.0.0.0", about="address of health checks and metrics")  # noqa: S104 - probes come from outside
    ops_port: Port = ops_port_setting(9000)
    drain_seconds: Seconds = setting(10.0, about="how long a stop may take before it is cut short")


def from_env(settings: type[Loaded], environ: Mapping[str, str] | None = None) -> Loaded:
    """Read `settings`, a dataclass, from the environment; raise SettingsError, listing everything that is wrong."""
    source = os.environ if environ is None else environ
    hints = get_type_hints(settings, include_extras=True)
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for item in fields(settings):  # type: ignore[arg-type]  # a dataclass by contract
        variable = item.name.upper()
        text = source.get(variable, "")
        if not text:
            unless = item.metadata["unless"]
            if item.default is MISSING or (unless and not source.get(unless)):
                meant = [found.variable for found in unread((settings,), source) if found.meant == variable]
                hint = f" (is {meant[0]} meant for it, which is set?)" if meant else ""
                wrong.append(f"{variable} is not set: {item.metadata['about']}{hint}")
            continue
        try:
            values[item.name] = _cast(text, hints[item.name])
        except msgspec.ValidationError as error:
            words = in_words(str(error).partition(" - at `")[0], hints[item.name], from_text=True)
            wrong.append(f"{variable}={_shown(item, text)}: {words}")
    if not wrong:
        try:
            return settings(**values)
        except ValueError as error:  # a rule between fields, raised by __post_init__
            wrong.append(str(error))
    raise SettingsError("\n".join(wrong))


def _cast(text: str, hint: Any) -> Any:
    bare = get_origin(hint) or hint
    if bare is tuple:
        return msgspec.convert(tuple(part.strip() for part in text.split(",") if part.strip()), hint, strict=False)
    return msgspec.convert(text, hint, strict=False)


def _shown(item: Field[Any], text: str) -> str:
    return "(hidden)" if item.metadata["secret"] else repr(text)


@dataclass(frozen=True, slots=True)
class Unread:
    """A variable that is set but that no process reads; `meant` is the setting it may be a misspelling of, or empty."""

    variable: str
    meant: str


def unread(settings: Iterable[type[Any]], environ: Mapping[str, str] | None = None) -> list[Unread]:
    """Return the variables that look like settings but are not, by their prefix or because they are nearly right.

    Settings of our other processes are not reported, nor are the variables that Kubernetes sets by itself. A nearly
    right name is reported only while the right one is not set; otherwise it belongs to another program.
    """
    source = os.environ if environ is None else environ
    ours = [item.name.upper() for kind in settings for item in fields(kind)]
    spellable = [name for name in ours if len(name) >= _SHORTEST_MISSPELT and not source.get(name)]
    found = []
    for name, value in source.items():
        if name in VARIABLES or not value or _is_link(name, value):
            continue
        of_family, meant = _after_family(name.upper(), ours)
        if not meant:
            meant = next(iter(get_close_matches(name.upper(), spellable, n=1, cutoff=_CLOSE)), "")
        if of_family or meant:
            found.append(Unread(name, meant))
    return sorted(found, key=lambda one: one.variable)


def _after_family(name: str, ours: list[str]) -> tuple[bool, str]:
    """Return whether the name has one of our prefixes, and the setting that the rest of it may mean."""
    for family in (*_FAMILIES, *_SHARED_FAMILIES):
        if name.startswith(family):
            rest = name.removeprefix(family)
            if family in _SHARED_FAMILIES and len(rest) < _SHORTEST_MISSPELT:  # BROKER_HOST may be any program's
                return False, ""
            meant = rest if rest in ours else next(iter(get_close_matches(rest, ours, n=1, cutoff=_CLOSE)), "")
            return family in _FAMILIES, meant
    return False, ""


def _is_link(name: str, value: str) -> bool:
    return bool(_LINK.fullmatch(name)) or (name.endswith("_PORT") and bool(_LINK_ADDRESS.fullmatch(value)))


def table(settings: type[Any]) -> list[tuple[str, str, str]]:
    """Return rows (variable, default, purpose) for documentation; a required variable has the default REQUIRED."""
    rows = []
    for item in fields(settings):
        default = REQUIRED if item.default is MISSING or item.metadata["unless"] else _default_text(item.default)
        rows.append((item.name.upper(), default, item.metadata["about"]))
    return rows


def choices(settings: type[Any]) -> dict[str, tuple[str, ...]]:
    """Return the possible values of each variable that has a fixed set of them."""
    hints = get_type_hints(settings)
    return {name.upper(): get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def _default_text(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "empty"
    if isinstance(default, float):
        return f"{default:g}"
    return "empty" if default in ("", None) else str(default)
