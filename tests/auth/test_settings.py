import pytest

from auth.settings import AuthSettings, DatabaseSettings
from runtime.settings import SettingsError, from_env

COMPLETE = {"AUTH_DATABASE_URL": "sqlite+aiosqlite:///x.db", "SIGNING_KEY_SECRET": "0123456789abcdef"}


def test_secrets_have_no_default() -> None:
    with pytest.raises(SettingsError) as caught:
        from_env(AuthSettings, {})
    assert "AUTH_DATABASE_URL is not set" in str(caught.value)
    assert "SIGNING_KEY_SECRET is not set" in str(caught.value)


def test_defaults_are_those_of_the_design() -> None:
    settings = from_env(AuthSettings, COMPLETE)
    assert (settings.host, settings.port, settings.ops_port) == ("0.0.0.0", 8001, 9001)  # noqa: S104
    assert (settings.token_issuer, settings.bcrypt_cost, settings.signup) == ("tidegate", 12, "open")
    assert settings.access_token_seconds == 3600
    assert settings.key_publish_seconds == 60
    assert settings.device_token_seconds == settings.refresh_token_seconds == 30 * 24 * 3600


def test_secrets_are_not_shown() -> None:
    shown = repr(from_env(AuthSettings, COMPLETE))
    assert "0123456789abcdef" not in shown
    assert "x.db" not in shown


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SIGNING_KEY_SECRET", "short"),
        ("BCRYPT_COST", "3"),
        ("BCRYPT_COST", "17"),
        ("HASH_THREADS", "-1"),
        ("SIGNUP", "maybe"),
        ("MAX_DEVICES_PER_OWNER", "0"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.1/8"),
        ("ACCOUNT_FAILURES", "0"),
        ("ADDRESS_FAILURE_SECONDS", "0"),
        ("DEVICE_TOKEN_SECONDS", str(32 * 86400)),
        ("KEY_PUBLISH_SECONDS", "-1"),
        ("KEY_PUBLISH_SECONDS", "86401"),
        ("AUTH_DATABASE_URL", "mysql://root:hunter22@db/auth"),
    ],
)
def test_a_bad_value_is_named_and_a_secret_one_is_not_repeated(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        from_env(AuthSettings, COMPLETE | {variable: value})
    assert "hunter22" not in str(caught.value)
    assert "short" not in str(caught.value)


def test_a_migration_needs_the_database_only() -> None:
    url = COMPLETE["AUTH_DATABASE_URL"]
    assert from_env(DatabaseSettings, {"AUTH_DATABASE_URL": url}).auth_database_url == url
