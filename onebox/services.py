"""The settings of the services that a onebox runs: from the environment as theirs, but for what it makes itself."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from auth.settings import AuthSettings
from gateway.settings import GatewaySettings
from onebox.plan import Plan
from persister.settings import PersisterSettings
from reader.settings import ReaderSettings
from runtime.settings import SettingsError, from_env

SERVICES = (AuthSettings, GatewaySettings, PersisterSettings, ReaderSettings)
# Where the one process listens is on its command line; where its parts find each other is its own matter.
MADE_HERE = ("HOST", "PORT", "AUTH_DATABASE_URL", "AUTH_URL", "BROKER_URL", "READINGS_URL")
# Stand for what is only known when the data folder is locked and mongod runs.
_NOT_YET_A_SECRET = "kept beside the data"  # noqa: S105 - never seals anything
_NOT_YET_A_URL = "mongodb://not-yet.invalid"

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What each service is given."""

    auth: AuthSettings
    gateway: GatewaySettings
    persister: PersisterSettings
    reader: ReaderSettings

    def with_mongod(self, url: str) -> "ServiceSettings":
        """Return the same with the address of the mongod that was started."""
        persister, reader = replace(self.persister, readings_url=url), replace(self.reader, readings_url=url)
        return replace(self, persister=persister, reader=reader)

    def with_secret(self, kept: str) -> "ServiceSettings":
        """Return the same with the secret that seals the signing keys, unless the environment has one."""
        if self.auth.signing_key_secret != _NOT_YET_A_SECRET:
            return self
        return replace(self, auth=replace(self.auth, signing_key_secret=kept))


def services_from_env(plan: Plan, environ: Mapping[str, str] | None = None) -> ServiceSettings:
    """Read the settings of all services; SettingsError has a line for everything that is wrong, once."""
    source = os.environ if environ is None else environ
    given = {"SIGNING_KEY_SECRET": _NOT_YET_A_SECRET} | {name: text for name, text in source.items() if text}
    given |= {
        "AUTH_DATABASE_URL": plan.users_url,
        "AUTH_URL": "http://in-process.invalid",
        "BROKER_URL": plan.queue_url,
        "READINGS_URL": _NOT_YET_A_URL,
    }
    for name in ("HOST", "PORT"):
        given.pop(name, None)
    wrong: dict[str, None] = {}

    def read(settings: type[Settings]) -> Settings | None:
        try:
            return from_env(settings, given)
        except SettingsError as error:
            wrong.update(dict.fromkeys(str(error).splitlines()))
            return None

    auth, gateway = read(AuthSettings), read(GatewaySettings)
    persister, reader = read(PersisterSettings), read(ReaderSettings)
    if auth is None or gateway is None or persister is None or reader is None:
        raise SettingsError("\n".join(wrong))
    return ServiceSettings(auth=auth, gateway=gateway, persister=persister, reader=reader)


def not_taken(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the variables that are set, and that a onebox makes itself all the same."""
    source = os.environ if environ is None else environ
    return [name for name in MADE_HERE if source.get(name)]
