"""A onebox reads its services' settings from the environment, and reports every mistake before it starts."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from alarms.settings import AlarmsSettings
from auth.settings import AuthSettings
from gateway.settings import GatewaySettings
from onebox.command import parse
from onebox.services import SET_BY_ONEBOX, ServiceSettings, services_from_env
from persister.settings import PersisterSettings
from reader.settings import ReaderSettings
from runtime.settings import ProcessSettings, SettingsError
from tests.e2e.onebox_process import ROOT

SERVICES: dict[str, type[Any]] = {
    "auth": AuthSettings,
    "gateway": GatewaySettings,
    "persister": PersisterSettings,
    "reader": ReaderSettings,
    "alarms": AlarmsSettings,
}
# A onebox is one process: these it has once, with defaults of its own.
OF_THE_PROCESS = {field.name for field in fields(ProcessSettings)}
# Another value than the default, where adding one to a number, or turning a switch, makes none.
OTHER = {
    "signing_key_files": ("a.pem,b.pem", ("a.pem", "b.pem")),
    "signing_key_secret": ("one that was chosen", "one that was chosen"),
    "token_issuer": ("https://tidegate.example", "https://tidegate.example"),
    "signup": ("closed", "closed"),
    "alarm_secret": ("one that was chosen", "one that was chosen"),
    "webhook_allowed_networks": ("10.1.0.0/16", ("10.1.0.0/16",)),
    "smtp_url": ("smtps://mail.example", "smtps://mail.example"),
    "email_from": ("alarms@example.org", "alarms@example.org"),
    "sealing": ("off", "off"),
    "cors_origins": ("https://app.example", ("https://app.example",)),
    "trusted_proxies": ("10.0.0.0/8,::1", ("10.0.0.0/8", "::1")),
    "readings_database": ("elsewhere", "elsewhere"),
    "retention_days_by_sensor_type": ("door=3", ("door=3",)),
    "hash_threads": ("3", 3),
}
NEEDED_WITH = {"smtp_url": {"EMAIL_FROM": "alarms@example.org"}}
PLAN = parse(["--data", "/tmp/somewhere"])

TAKEN = [
    (service, field)
    for service, settings in SERVICES.items()
    for field in fields(settings)
    if field.name.upper() not in SET_BY_ONEBOX and field.name not in OF_THE_PROCESS
]


def other_value(field: Any) -> tuple[str, Any]:
    if field.name in OTHER:
        return OTHER[field.name]
    if isinstance(field.default, bool):
        return str(not field.default).lower(), not field.default
    return f"{field.default + 1:g}" if isinstance(field.default, float) else str(field.default + 1), field.default + 1


@pytest.mark.parametrize(("service", "field"), TAKEN, ids=lambda part: getattr(part, "name", part))
def test_every_setting_of_a_service_is_taken(service: str, field: Any) -> None:
    text, value = other_value(field)
    assert value != field.default
    given = {field.name.upper(): text} | NEEDED_WITH.get(field.name, {})
    assert getattr(getattr(services_from_env(PLAN, given), service), field.name) == value


def test_without_any_each_service_has_its_own_defaults() -> None:
    services = services_from_env(PLAN, {})
    for service, field in TAKEN:
        if field.name not in ("signing_key_secret", "alarm_secret"):
            assert getattr(getattr(services, service), field.name) == field.default, field.name


def test_what_a_onebox_makes_itself_is_not_taken() -> None:
    usual = services_from_env(PLAN, {})
    foreign = {
        "HOST": "192.0.2.1",
        "PORT": "1",
        "AUTH_DATABASE_URL": "mysql+aiomysql://u:p@db.example/users",
        "AUTH_URL": "http://auth.example",
        "ALARMS_URL": "http://alarms.example",
        "READER_URL": "http://reader.example",
        "BROKER_URL": "amqp://rabbit.example",
        "READINGS_URL": "mongodb://mongo.example",
    }
    assert set(foreign) == set(SET_BY_ONEBOX)
    assert services_from_env(PLAN, foreign) == usual
    assert not any("example" in repr(vars_of(service)) for service in (usual, services_from_env(PLAN, foreign)))
    found = usual.with_mongod("mongodb://here")
    assert (found.persister.readings_url, found.reader.readings_url) == ("mongodb://here", "mongodb://here")


def vars_of(services: ServiceSettings) -> list[Any]:
    return [
        getattr(getattr(services, service), field.name)
        for service, settings in SERVICES.items()
        for field in fields(settings)
    ]


def test_the_kept_secret_serves_unless_another_was_given() -> None:
    assert services_from_env(PLAN, {}).with_secret("kept in a file").auth.signing_key_secret == "kept in a file"
    chosen = services_from_env(PLAN, {"SIGNING_KEY_SECRET": "one that was chosen"})
    assert chosen.with_secret("kept in a file").auth.signing_key_secret == "one that was chosen"


def test_all_that_is_wrong_is_named_once_with_its_value() -> None:
    environ = {
        "ACCESS_TOKEN_SECONDS": "soon",
        "PREFETCH": "0",
        "MAX_LIVE": "-1",
        "UNREAD_TIMEOUT_SECONDS": "never",  # of two services
        "LOG_LEVEL": "loud",  # of all
        "SIGNING_KEY_SECRET": "too short",
    }
    with pytest.raises(SettingsError) as raised:
        services_from_env(PLAN, environ)
    lines = str(raised.value).splitlines()
    assert len(lines) == len(environ)
    for name, text in environ.items():
        shown = "(hidden)" if name == "SIGNING_KEY_SECRET" else repr(text)
        assert [line for line in lines if line.startswith(f"{name}={shown}: ")]
    assert "too short" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("TRUSTED_PROXIES", "10.0.0.1/8"), ("MAX_QUERIES", "many"), ("RETENTION_DAYS", "-1"), ("BCRYPT_COST", "99")],
)
def test_a_bad_value_stops_the_start_with_variable_and_value(tmp_path: Path, name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onebox", "--data", str(tmp_path / "data"), "--devices", "0", "--seconds", "0.1"],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", name: value}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert name in done.stderr
    assert value in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_variable_that_no_service_reads_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "onebox", "--data", str(tmp_path / "file"), "--devices", "0"],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", "MAX_QUERIE": "9", "BATCH_READING": "8", "GATEWAY_PORT": "tcp://10.0.0.1:1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if "no process reads" in line]
    assert len(told) == 2
    for line, variable, meant in zip(
        told, ("BATCH_READING", "MAX_QUERIE"), ("BATCH_READINGS", "MAX_QUERIES"), strict=True
    ):
        assert f"variable={variable}" in line
        assert f"meant={meant}" in line
