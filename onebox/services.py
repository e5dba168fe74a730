"""The settings of the services in a onebox: read from the environment, except those that the onebox sets itself."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from alarms.settings import AlarmsSettings
from auth.settings import AuthSettings
from gateway.settings import GatewaySettings
from onebox.run import Plan
from persister.settings import CompactSettings, PersisterSettings
from reader.settings import ReaderSettings
from runtime.settings import SettingsError, from_env

SERVICES = (AuthSettings, GatewaySettings, PersisterSettings, CompactSettings, ReaderSettings, AlarmsSettings)
# The command line says where the process listens; the addresses of its parts are internal.
SET_BY_ONEBOX = (
    "HOST",
    "PORT",
    "AUTH_DATABASE_URL",
    "AUTH_URL",
    "ALARMS_URL",
    "READER_URL",
    "BROKER_URL",
    "READINGS_URL",
)
# Placeholders until the data folder is locked and mongod runs.
_PLACEHOLDER_SECRET = "read from the data folder"  # noqa: S105 - never seals anything
_PLACEHOLDER_URL = "mongodb://not-yet.invalid"

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """The settings of each service."""

    auth: AuthSettings
    gateway: GatewaySettings
    persister: PersisterSettings
    compactor: CompactSettings
    reader: ReaderSettings
    alarms: AlarmsSettings

    def with_mongod(self, url: str) -> "ServiceSettings":
        """Return a copy with the URL of the running mongod."""
        persister, reader = replace(self.persister, readings_url=url), replace(self.reader, readings_url=url)
        return replace(self, persister=persister, compactor=replace(self.compactor, readings_url=url), reader=reader)

    def with_secret(self, secret: str) -> "ServiceSettings":
        """Return a copy with the secret that seals signing keys and webhooks' secrets, unless the environment does."""
        auth, alarms = self.auth, self.alarms
        if auth.signing_key_secret == _PLACEHOLDER_SECRET:
            auth = replace(auth, signing_key_secret=secret)
        if alarms.alarm_secret == _PLACEHOLDER_SECRET:
            alarms = replace(alarms, alarm_secret=secret)
        return replace(self, auth=auth, alarms=alarms)


def services_from_env(plan: Plan, environ: Mapping[str, str] | None = None) -> ServiceSettings:
    """Read the settings of all services; raise SettingsError with one line for each mistake."""
    source = os.environ if environ is None else environ
    given = {"SIGNING_KEY_SECRET": _PLACEHOLDER_SECRET, "ALARM_SECRET": _PLACEHOLDER_SECRET} | {
        name: text for name, text in source.items() if text
    }
    given |= {
        "AUTH_DATABASE_URL": plan.users_url,
        "AUTH_URL": "http://in-process.invalid",
        "BROKER_URL": plan.queue_url,
        "READINGS_URL": _PLACEHOLDER_URL,
    }
    for name in ("HOST", "PORT", "ALARMS_URL", "READER_URL"):
        given.pop(name, None)
    wrong: dict[str, None] = {}

    def read(settings: type[Settings]) -> Settings | None:
        try:
            return from_env(settings, given)
        except SettingsError as error:
            wrong.update(dict.fromkeys(str(error).splitlines()))
            return None

    auth, gateway = read(AuthSettings), read(GatewaySettings)
    persister, compactor, reader = read(PersisterSettings), read(CompactSettings), read(ReaderSettings)
    alarms = read(AlarmsSettings)
    if not (auth and gateway and persister and compactor and reader and alarms):
        raise SettingsError("\n".join(wrong))
    return ServiceSettings(
        auth=auth, gateway=gateway, persister=persister, compactor=compactor, reader=reader, alarms=alarms
    )


def ignored_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the variables that are set but ignored, because a onebox sets them itself."""
    source = os.environ if environ is None else environ
    return [name for name in SET_BY_ONEBOX if source.get(name)]
