"""Settings from the environment: every mistake is reported, no secret is shown."""

from dataclasses import dataclass
from typing import Literal

import pytest

from runtime.settings import Port, Positive, ProcessSettings, Seconds, SettingsError, from_env, setting, table


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(ProcessSettings):
    database_url: str = setting(about="where data is", secret=True)
    secret_port: Port = setting(1, about="a number that is nobody's business", secret=True)
    max_batch: Positive = setting(100, about="size of a batch")
    ratio: float = setting(0.5, about="a ratio")
    wait_seconds: Seconds = setting(1.5, about="how long")
    closed: bool = setting(False, about="a switch")
    origins: tuple[str, ...] = setting((), about="a list")
    mode: Literal["open", "closed"] = setting("open", about="one of two")

    def __post_init__(self) -> None:
        if self.max_batch > 500 and self.closed:
            raise ValueError("MAX_BATCH above 500 does not go with CLOSED")


GOOD = {"DATABASE_URL": "db://user:hunter2@host"}


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as refused:
        from_env(Sample, GOOD | environ)
    return str(refused.value)


def test_every_kind_of_variable_is_read() -> None:
    found = from_env(
        Sample,
        GOOD
        | {
            "MAX_BATCH": "7",
            "RATIO": "0.25",
            "WAIT_SECONDS": "3",
            "CLOSED": "true",
            "ORIGINS": " https://a.test , https://b.test,",
            "MODE": "closed",
            "OPS_PORT": "0",
            "LOG_FORMAT": "json",
        },
    )
    assert found == Sample(
        database_url="db://user:hunter2@host",
        max_batch=7,
        ratio=0.25,
        wait_seconds=3.0,
        closed=True,
        origins=("https://a.test", "https://b.test"),
        mode="closed",
        ops_port=0,
        log_format="json",
    )


def test_an_empty_variable_counts_as_unset() -> None:
    names = ("MAX_BATCH", "RATIO", "CLOSED", "ORIGINS", "MODE", "LOG_LEVEL")
    assert from_env(Sample, GOOD | dict.fromkeys(names, "")) == from_env(Sample, GOOD)
    assert "DATABASE_URL is not set: where data is" in refusal(DATABASE_URL="")


def test_a_variable_of_nobody_is_ignored() -> None:
    assert from_env(Sample, GOOD | {"PATH": "/bin", "max_batch": "no number"}) == from_env(Sample, GOOD)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("MAX_BATCH", value) for value in ("0", "-1", "ten", "1.5", " ")),
        *(("OPS_PORT", value) for value in ("-1", "65536", "http", "80 81")),
        *(("RATIO", value) for value in ("half", "1,5")),
        *(("WAIT_SECONDS", value) for value in ("0", "-1", "soon", "nan", "inf", "1e999")),
        *(("CLOSED", value) for value in ("maybe", "2")),
        *(("MODE", value) for value in ("OPEN", "ajar")),
        *(("LOG_LEVEL", value) for value in ("loud", "10")),
        *(("LOG_FORMAT", value) for value in ("xml", "JSON")),
    ],
)
def test_a_bad_variable_is_named_with_its_value(variable: str, value: str) -> None:
    (line,) = refusal(**{variable: value}).splitlines()
    assert line.startswith(f"{variable}={value!r}: ")


def test_a_wrong_choice_is_answered_with_the_right_ones() -> None:
    assert refusal(MODE="ajar") == "MODE='ajar': must be one of closed, open"
    assert refusal(LOG_LEVEL="loud") == "LOG_LEVEL='loud': must be one of debug, error, info, warning"


def test_a_bad_value_is_explained_in_words() -> None:
    assert refusal(MAX_BATCH="ten") == "MAX_BATCH='ten': must be a whole number"
    assert refusal(OPS_PORT="65536") == "OPS_PORT='65536': must be at most 65535"
    assert refusal(CLOSED="maybe") == "CLOSED='maybe': must be true or false"


def test_all_bad_variables_are_named_at_once() -> None:
    lines = refusal(DATABASE_URL="", MAX_BATCH="ten", MODE="ajar").splitlines()
    assert sorted(line.split("=")[0].split(" ")[0] for line in lines) == ["DATABASE_URL", "MAX_BATCH", "MODE"]


def test_a_rule_between_fields_is_told_in_its_own_words() -> None:
    assert refusal(MAX_BATCH="501", CLOSED="true") == "MAX_BATCH above 500 does not go with CLOSED"


def test_a_bad_secret_is_named_and_not_shown() -> None:
    message = refusal(SECRET_PORT="hunter3")
    assert message.startswith("SECRET_PORT=(hidden): ")
    assert "hunter" not in message


def test_secrets_are_not_shown_when_something_else_is_wrong() -> None:
    assert "hunter2" not in refusal(MAX_BATCH="ten")


def test_secrets_are_not_shown_in_repr() -> None:
    shown = repr(from_env(Sample, GOOD | {"SECRET_PORT": "4711"}))
    assert "hunter2" not in shown
    assert "4711" not in shown
    assert "max_batch=100" in shown


def test_settings_are_read_from_the_environment_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "db://host")
    monkeypatch.setenv("MAX_BATCH", "3")
    assert from_env(Sample).max_batch == 3


def test_the_table_lists_variables_with_defaults_and_purpose() -> None:
    rows = {name: (default, about) for name, default, about in table(Sample)}
    assert rows["DATABASE_URL"] == ("required", "where data is")
    assert rows["MAX_BATCH"] == ("100", "size of a batch")
    assert [rows[name][0] for name in ("WAIT_SECONDS", "CLOSED", "ORIGINS", "MODE")] == [
        "1.5",
        "false",
        "empty",
        "open",
    ]
