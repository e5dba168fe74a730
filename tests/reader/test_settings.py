"""The reader's settings: defaults, and invalid values that prevent the start and are named."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from reader.settings import ReaderSettings
from runtime.settings import SettingsError, from_env

GOOD = {
    "BROKER_URL": "amqp://user:hunter2@broker",
    "READINGS_URL": "mongodb://user:hunter2@mongo",
    "AUTH_URL": "http://auth:8001",
}


def test_what_has_no_default_must_be_given() -> None:
    with pytest.raises(SettingsError) as refused:
        from_env(ReaderSettings, {})
    for name in GOOD:
        assert f"{name} is not set" in str(refused.value)


def test_defaults_are_those_of_the_design() -> None:
    settings = from_env(ReaderSettings, GOOD)
    assert (settings.port, settings.ops_port, settings.readings_database) == (8003, 9005, "tidegate")
    assert settings.revocations_every_seconds == 2
    assert settings.token_issuer == ""
    assert (settings.max_queries, settings.max_queries_per_owner) == (512, 64)
    assert settings.unread_timeout_seconds == settings.heartbeat_seconds == settings.query_timeout_seconds == 10


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in repr(from_env(ReaderSettings, GOOD))


@pytest.mark.parametrize(
    "url",
    [
        *("mongodb://host", "mongodb+srv://host", "mongodb://a,b/?readPreference=primary", "mongodb://a/?w=1"),
        *("mongodb://u:p%40%2f@[::1]:27017,a.b:1/x", "mongodb://%2Ftmp%2Fmongod.sock", "mongodb://u@h?w=1"),
        "mongodb+srv://u:p@cluster.example/?retryWrites=true",
    ],
)
def test_both_forms_of_mongodbs_addresses_are_taken(url: str) -> None:
    assert from_env(ReaderSettings, GOOD | {"READINGS_URL": url}).readings_url == url


BAD = {
    "BROKER_URL": ["hunter2", "http://hunter2", "redis://hunter2", "embedded://"],
    "READINGS_URL": [
        *("hunter2", "mysql://hunter2", "http://hunter2", "//hunter2"),
        *("mongodb://u:hunter2@a,b/?readPreference=secondary", "mongodb://u:hunter2@a?w=1&READpreference=nearest"),
        "mongodb+srv://u:hunter2@a/x?w=1;readPreference=secondaryPreferred",
        # What the driver refuses with an exception of its own.
        *("mongodb://", "mongodb:///tmp/mongod.sock", "mongodb://u:hunter2@@host", "mongodb://u:hunter2/3@host"),
        *("mongodb://u:hunter2%@host", "mongodb://u:hunter2:3@host", "mongodb://u:hunter2@host:port"),
        *("mongodb://host:65536", "mongodb://a,,b", "mongodb://::1", "mongodb+srv://a:27017", "mongodb+srv://a,b"),
    ],
    "READINGS_DATABASE": ["a b", "a.b", "a/b", "a$b", 'a"b', "a\\b", "x" * 64, "\u00e4" * 32],
    "PORT": ["-1", "65536", "http", "80.5"],
    "OPS_PORT": ["-1", "65536"],
    "REVOCATIONS_EVERY_SECONDS": ["0", "-1", "inf", "nan", "often"],
    "QUERY_TIMEOUT_SECONDS": ["0", "-1", "inf", "100000"],
    "MAX_QUERIES": ["0", "-1", "1.5", "many"],
    "MAX_QUERIES_PER_OWNER": ["0", "x"],
    "MAX_LIVE_PER_OWNER": ["0", "x"],
    "MAX_LIVE": ["0", "x"],
    "HEARTBEAT_SECONDS": ["0", "inf", "x"],
    "UNREAD_TIMEOUT_SECONDS": ["0", "-0.1", "x"],
    "LOG_LEVEL": ["loud"],
    "LOG_FORMAT": ["xml"],
    "DRAIN_SECONDS": ["0"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_named_and_a_secret_one_is_not_repeated(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as refused:
        from_env(ReaderSettings, GOOD | {name: value})
    assert "hunter2" not in str(refused.value)


async def test_bad_values_stop_the_process_before_it_does_anything() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reader"),
        env={"PATH": os.environ["PATH"], **GOOD, "PORT": "x", "MAX_LIVE": "0"},
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    assert process.returncode not in (0, None)
    assert "PORT='x'" in output
    assert "MAX_LIVE='0'" in output
    assert "Traceback" not in output
