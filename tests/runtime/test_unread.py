"""Variables that look like settings but are not are reported; other programs' and Kubernetes' are not."""

import pytest

from auth.settings import AuthSettings
from gateway.settings import GatewaySettings
from onebox.services import SERVICES
from onebox.settings import OneboxSettings
from persister.settings import PersisterSettings
from reader.settings import ReaderSettings
from runtime.settings import ProcessSettings, SettingsError, Unread, from_env, unread
from runtime.variables import VARIABLES
from simulator.settings import SimulatorSettings

PROCESSES: dict[str, tuple[type[ProcessSettings], ...]] = {
    "auth": (AuthSettings,),
    "gateway": (GatewaySettings,),
    "persister": (PersisterSettings,),
    "reader": (ReaderSettings,),
    "simulator serve": (SimulatorSettings,),
    "onebox": (OneboxSettings, *SERVICES),
}

MISSPELT = {
    "BROKR_URL": "BROKER_URL",
    "BROKER_URI": "BROKER_URL",
    "LOGLEVEL": "LOG_LEVEL",
    "LOG_LEVELS": "LOG_LEVEL",
    "CORS_ORIGIN": "CORS_ORIGINS",
    "CORS_ORIGNIS": "CORS_ORIGINS",
    "MAX_CONNECTION": "MAX_CONNECTIONS",
    "MAXCONNECTIONS": "MAX_CONNECTIONS",
    "max_connections": "MAX_CONNECTIONS",
    "DEVICE_READINGS_PER_SECONDS": "DEVICE_READINGS_PER_SECOND",
    "GATEWAY_PORT": "PORT",
    "GATEWAY_HOST": "HOST",
    "GATEWAY_LOG_LEVEL": "LOG_LEVEL",
    "GATEWAY_LOGLEVEL": "LOG_LEVEL",
    "TIDEGATE_BROKER_URL": "BROKER_URL",
    "AUTH_LOG_LEVEL": "LOG_LEVEL",
    "GATEWAY_SPEED": "",
    "READER_PORTS": "PORT",
    "TIDEGATE_MODE": "",
}


@pytest.mark.parametrize(("variable", "meant"), MISSPELT.items(), ids=MISSPELT)
def test_a_variable_that_looks_like_ours_is_told_of_with_the_likely_right_one(variable: str, meant: str) -> None:
    assert unread((GatewaySettings,), {variable: "1"}) == [Unread(variable, meant)]


# What Kubernetes sets in a pod beside Services named auth, gateway, reader, broker, and others.
LINKS = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
    **{
        f"{service}_{name}": value
        for service in ("AUTH", "GATEWAY", "READER", "PERSISTER", "SIMULATOR", "BROKER", "GATEWAY_OPS", "AUTH_DATABASE")
        for name, value in {
            "SERVICE_HOST": "10.0.171.239",
            "SERVICE_PORT": "8002",
            "SERVICE_PORT_HTTP": "8002",
            "PORT": "tcp://10.0.171.239:8002",
            "PORT_8002_TCP": "tcp://10.0.171.239:8002",
            "PORT_8002_TCP_PROTO": "tcp",
            "PORT_8002_TCP_PORT": "8002",
            "PORT_8002_TCP_ADDR": "10.0.171.239",
            "PORT_8125_UDP_ADDR": "10.0.171.239",
        }.items()
    },
}

# Of shells, desktops, distributions, containers, clouds, CI and other programs.
COMMON_NAMES = """
PATH HOME LANG LC_ALL LANGUAGE TZ TERM USER LOGNAME SHELL SHLVL PWD OLDPWD HOSTNAME HOSTTYPE HOST_NAME MACHTYPE OSTYPE
COLUMNS LINES EDITOR VISUAL PAGER MAIL MAILTO DISPLAY XAUTHORITY XDG_RUNTIME_DIR XDG_SESSION_TYPE SSH_AUTH_SOCK SSH_TTY
SSH_CONNECTION DBUS_SESSION_BUS_ADDRESS COLORTERM LS_COLORS LESSOPEN NO_COLOR FORCE_COLOR PORTAGE PORTAGE_CONFIGROOT
PORTDIR PORT_RANGE PORTS HOSTS COST PREFETCH_COUNT DEBUG VERBOSE ENV ENVIRONMENT MODE NODE_ENV RAILS_ENV APP_ENV SECRET
SECRET_KEY TOKEN API_TOKEN API_URL BASE_URL DATABASE_URL DB_HOST DB_PORT DB_USER REDIS_URL REDIS_HOST MONGODB_URL
MONGO_URL MYSQL_PASSWORD MYSQL_DATABASE MYSQL_HOST RABBITMQ_URL RABBITMQ_NODENAME AMQP_URL AUTH_TOKEN AUTH_SECRET
AUTH_USER AUTH_HOST AUTH_PORT BROKER_HOST BROKER_PORT BROKER_ID BROKER_USERNAME NPM_TOKEN npm_config_cache
DOCKER_HOST DOCKER_BUILDKIT DOCKER_CONFIG COMPOSE_PROJECT_NAME COMPOSE_FILE COMPOSE_PROFILES CONTAINER_NAME container
PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PIP_INDEX_URL VIRTUAL_ENV CONDA_PREFIX GOPATH JAVA_HOME CARGO_HOME
CI GITHUB_ACTIONS GITHUB_TOKEN GITLAB_CI BUILD_NUMBER RUNNER_OS AWS_REGION AWS_ACCESS_KEY_ID GOOGLE_CLOUD_PROJECT
AZURE_CLIENT_ID HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy ALL_PROXY SSL_CERT_FILE CURL_CA_BUNDLE
OTEL_EXPORTER_OTLP_ENDPOINT OTEL_SERVICE_NAME OTEL_RESOURCE_ATTRIBUTES UVLOOP_DEBUG MALLOC_ARENA_MAX LD_PRELOAD
INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET LISTEN_PID LISTEN_FDS MAINPID MANAGERPID SYSTEMD_EXEC_PID POD_NAME POD_IP
NODE_NAME POD_NAMESPACE TEST_SEED PYTEST_CURRENT_TEST TIDEGATE GRAFANA_PASSWORD MONGODB_KEY MONGODB_CACHE_GB HISTSIZE
TIMEOUT MAX_MEMORY MAX_WORKERS WEB_CONCURRENCY LOG_FILE LOG_DIR LOG_PATH LOG_TO_STDOUT RUST_LOG GIN_MODE HOST_IP
"""
COMMON = COMMON_NAMES.split()


@pytest.mark.parametrize("process", PROCESSES)
def test_an_environment_as_it_is_usual_is_told_nothing_of(process: str) -> None:
    assert len(COMMON) > 150
    assert unread(PROCESSES[process], dict.fromkeys(COMMON, "1")) == []


@pytest.mark.parametrize("process", PROCESSES)
def test_what_kubernetes_sets_is_told_nothing_of(process: str) -> None:
    assert unread(PROCESSES[process], LINKS) == []


@pytest.mark.parametrize("process", PROCESSES)
def test_what_another_of_our_processes_takes_is_told_nothing_of(process: str) -> None:
    """One file of settings may serve them all."""
    assert unread(PROCESSES[process], dict.fromkeys(VARIABLES, "1")) == []


@pytest.mark.parametrize("process", PROCESSES)
def test_each_process_knows_its_settings_without_the_last_letter(process: str) -> None:
    names = [name for kind in PROCESSES[process] for name in kind.__dataclass_fields__ if len(name) >= 8]
    assert len(names) > 4
    for name in names:
        short = name.upper()[:-1]
        if short not in VARIABLES:
            assert [it.variable for it in unread(PROCESSES[process], {short: "1"})] == [short]


def test_one_that_is_nearly_right_is_somebody_elses_while_the_right_one_is_set() -> None:
    assert unread((GatewaySettings,), {"CORS_ORIGIN": "a", "CORS_ORIGINS": "https://a.test"}) == []
    assert unread((GatewaySettings,), {"GATEWAY_PORT": "1", "PORT": "2"}) == [Unread("GATEWAY_PORT", "PORT")]


def test_an_empty_variable_counts_as_unset() -> None:
    assert unread((GatewaySettings,), {"GATEWAY_PORT": ""}) == []


def test_a_required_setting_that_is_misspelt_is_asked_for_by_its_wrong_name() -> None:
    with pytest.raises(SettingsError) as refused:
        from_env(GatewaySettings, {"BROKR_URL": "amqp://secret@host", "AUTH_URL": "http://auth"})
    assert "BROKER_URL is not set: " in str(refused.value)
    assert str(refused.value).endswith("(is BROKR_URL meant for it, which is set?)")
    assert "secret" not in str(refused.value)
