"""Every metric that the dashboard and the alerts use exists on real services that Prometheus scrapes."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from broker.rabbitmq.broker import RabbitMQBroker
from testing.servers.ports import free_port
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.integration.device import connected, readings, registered_device
from tests.integration.services import ROOT, SECRET, migrated, started

DEPLOY = ROOT / "deploy"
CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "tidegate.json"
METRIC = re.compile(r"\b(?:tidegate|rabbitmq|process)_[a-z_]+\b|\bup\b")


def dashboard_expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


class Prometheus:
    """A Prometheus server with the shipped configuration."""

    def __init__(self, port: int, http: aiohttp.ClientSession) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"
        self._http = http

    async def get(self, path: str, **query: str) -> Any:
        async with self._http.get(f"{self._url}/{path}", params=query) as answer:
            response = await answer.json()
        assert response["status"] == "success", response
        return response["data"]

    async def values(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get("query", query=expression))["result"]
        return found


@asynccontextmanager
async def prometheus(folder: Path, ports: dict[str, int]) -> AsyncIterator[Prometheus]:
    """Run Prometheus with the shipped jobs and rules, and this test's addresses."""
    config = yaml.safe_load(CONFIG.read_text())
    assert {job["job_name"] for job in config["scrape_configs"]} == set(ports)
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            *(f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
            f"--web.listen-address=127.0.0.1:{port}",
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as http:
            yield Prometheus(port, http)
    finally:
        process.terminate()
        await process.wait()


async def test_every_service_is_scraped_and_every_queried_name_exists(
    tmp_path: Path, mariadb_url: str, mongodb_database: tuple[str, str]
) -> None:
    await migrated(mariadb_url)
    url, database = mongodb_database
    with RabbitMQServer(tmp_path / "rabbitmq", metrics=True) as rabbitmq:
        await RabbitMQBroker(rabbitmq.url, durable_after_s=0).declare()
        storage = {"READINGS_URL": url, "READINGS_DATABASE": database, "BROKER_URL": rabbitmq.url}
        users_url = {"AUTH_DATABASE_URL": mariadb_url}
        users = {**users_url, "SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4"}
        async with AsyncExitStack() as stack:
            auth = await stack.enter_async_context(started("auth", BROKER_URL=rabbitmq.url, **users))
            gateway = await stack.enter_async_context(started("gateway", BROKER_URL=rabbitmq.url, AUTH_URL=auth.url))
            persister = await stack.enter_async_context(started("persister", **storage))
            reader = await stack.enter_async_context(started("reader", AUTH_URL=auth.url, **storage))
            alarms = await stack.enter_async_context(
                started("alarms", BROKER_URL=rabbitmq.url, AUTH_URL=auth.url, ALARM_SECRET=SECRET, **users_url)
            )
            compactor = await stack.enter_async_context(started("persister compact", **storage))
            services = {
                "alarms": alarms,
                "auth": auth,
                "gateway": gateway,
                "persister": persister,
                "reader": reader,
                "compactor": compactor,
            }
            _, device, token = await registered_device(auth.url)
            sender = await stack.enter_async_context(connected(gateway.url, token, device))
            await sender.send_until_accepted(readings(0, 100))
            ports = {name: service.ops_port for name, service in services.items()}
            server = await stack.enter_async_context(prometheus(tmp_path, ports | {"rabbitmq": rabbitmq.metrics_port}))

            async def all_are_up() -> bool:
                try:
                    return {one["metric"]["job"] for one in await server.values("up == 1")} == set(ports) | {"rabbitmq"}
                except aiohttp.ClientError:
                    return False

            await eventually(all_are_up, "everything is scraped")
            known = set(await server.get("label/__name__/values"))
            expressions = [*dashboard_expressions(), *(alert["expr"] for alert in alerts())]
            assert len(expressions) > 50
            for expression in expressions:
                names = set(METRIC.findall(expression))
                assert names, expression
                assert names <= known, f"{names - known} in {expression}"
                await server.values(expression.replace("$__rate_interval", "1m"))  # and it is PromQL
            rules = (await server.get("rules"))["groups"][0]["rules"]
            assert [(rule["name"], rule.get("lastError", "")) for rule in rules] == [
                (alert["alert"], "") for alert in alerts()
            ]
            ours = {name for name in known if name.startswith("tidegate_")}
            assert ours
            for name in ours:
                await follows_conventions(server, name)


async def follows_conventions(server: Prometheus, name: str) -> None:
    """Check that units are base units, counters end with _total, and no label grows with devices."""
    (about,) = (await server.get("metadata", metric=base(name))).get(base(name), [{"type": "unknown"}])
    if about["type"] == "counter":
        assert name.endswith(("_total", "_created")), name
    assert not name.endswith(("_ms", "_milliseconds", "_minutes", "_kb", "_mib")), name
    labels = {label for one in await server.values(name) for label in one["metric"]}
    assert labels <= {"__name__", "job", "instance", "le", *FEW}, f"{name}: {labels}"


FEW = ("answer", "outcome", "reason", "why", "what", "scope", "kind", "call", "how", "version", "compiled")


def base(name: str) -> str:
    return re.sub(r"_(bucket|sum|count|created)$", "", name)


def test_the_rules_and_the_configuration_pass_promtool(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(CONFIG.read_text().replace("/etc/prometheus/alerts.yml", str(ALERTS)))
    kubernetes = (DEPLOY / "kubernetes" / "prometheus.yml").read_text()
    # Some builds of promtool lack Kubernetes support: check everything but the service discovery.
    of_kubernetes = yaml.safe_load(kubernetes.replace("/etc/prometheus/alerts.yml", str(ALERTS)))
    (found,) = of_kubernetes["scrape_configs"][0].pop("kubernetes_sd_configs")
    assert found == {"role": "pod", "namespaces": {"names": ["tidegate"]}}
    (tmp_path / "kubernetes.yml").write_text(yaml.safe_dump(of_kubernetes))
    configs = [["config", str(tmp_path / name)] for name in ("prometheus.yml", "kubernetes.yml")]
    for what in (["rules", str(ALERTS)], *configs):
        done = subprocess.run(["promtool", "check", *what], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# Input series, minute by minute, and the alerts that fire.
CASES: dict[str, tuple[dict[str, str], set[tuple[str, str]]]] = {
    "all is well": ({}, set()),
    "no gateway and no reader": (
        {'up{job="gateway",instance="a"}': "0x30", 'up{job="reader",instance="a"}': "_x30"},
        {("TidegateServiceGone", "gateway"), ("TidegateServiceGone", "reader"), ("TidegateInstanceDown", "gateway")},
    ),
    "no RabbitMQ": (
        {'up{job="rabbitmq",instance="a"}': "0x30"},
        {("TidegateRabbitMQGone", "rabbitmq"), ("TidegateRabbitMQDown", "rabbitmq")},
    ),
    "a full queue, which grows no more": (
        {
            'tidegate_gateway_messages_total{outcome="QueueFull"}': "0+60x30",
            "tidegate_persister_queue_depth": "5000x30",
        },
        {("TidegateQueueIsFull", "")},
    ),
    "late readings that become fewer": ({"tidegate_persister_backfill_queue_depth": "9000-100x30"}, set()),
    "late readings that become no fewer": (
        {"tidegate_persister_backfill_queue_depth": "5000x30"},
        {("TidegateBackfillDoesNotFall", "")},
    ),
    "no compactor, and nothing for it to do": (
        {'up{job="compactor",instance="a"}': "_x30", "tidegate_persister_sealed_waiting": "0x30"},
        set(),
    ),
    "no compactor, and a sealed collection": (
        {'up{job="compactor",instance="a"}': "_x30", 'tidegate_persister_sealed_waiting{instance="b"}': "1x30"},
        {("TidegateServiceGone", "compactor")},
    ),
    "two sealed collections that are soon compacted": (
        {
            'tidegate_persister_sealed_waiting{instance="a"}': "2x30",
            'tidegate_persister_sealed_oldest_seconds{instance="a"}': "0+60x30",
            "tidegate_compactor_given_up": "0x30",
        },
        set(),
    ),
    "sealed collections that gather, one of them for five hours": (
        {
            'tidegate_persister_sealed_waiting{instance="a"}': "7x30",
            'tidegate_persister_sealed_oldest_seconds{instance="a"}': "18000+60x30",
            "tidegate_compactor_given_up": "0x30",
        },
        {("TidegateSealedCollectionsWait", ""), ("TidegateCompactionLags", "")},
    ),
    "a sealed collection that was given up": (
        {
            'tidegate_persister_sealed_waiting{instance="a"}': "1x30",
            'tidegate_persister_sealed_oldest_seconds{instance="a"}': "18000+60x30",
            "tidegate_compactor_given_up": "1x30",
        },
        {("TidegateSealedCollectionGivenUp", "")},
    ),
    "one password guesser among many users": (
        {
            'tidegate_auth_logins_total{outcome="ok"}': "0+600x30",
            'tidegate_auth_logins_total{outcome="failed"}': "0+2x30",
            'tidegate_auth_rate_limited_total{scope="account"}': "0+30x30",
        },
        {("TidegateLogInsFail", "")},
    ),
    "guesses that no limit slows, and few other log-ins": (
        {
            'tidegate_auth_logins_total{outcome="ok"}': "0+2x30",
            'tidegate_auth_logins_total{outcome="failed"}': "0+20x30",
            'tidegate_auth_rate_limited_total{scope="account"}': "0x30",
        },
        {("TidegateLogInsFail", "")},
    ),
    "users who mistype": (
        {
            'tidegate_auth_logins_total{outcome="ok"}': "0+600x30",
            'tidegate_auth_logins_total{outcome="failed"}': "0+60x30",
            'tidegate_auth_rate_limited_total{scope="account"}': "0+1x30",
        },
        set(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_alert_fires_when_it_should(case: str, tmp_path: Path) -> None:
    given, expected = CASES[case]
    jobs = ("alarms", "auth", "gateway", "persister", "reader", "compactor", "rabbitmq")
    series = {f'up{{job="{job}",instance="a"}}': "1x30" for job in jobs} | given
    firing = [
        {"labels": f'{{alertname="{name}",job="{job}"}}' if job else f'{{alertname="{name}"}}', "value": 1}
        for name, job in expected
    ]
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'max by (alertname, job) (ALERTS{alertstate="firing"})',
                        "eval_time": "25m",
                        "exp_samples": firing,
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_links_to_its_section_of_the_runbook() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for alert in alerts():
        page, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert (page, anchor in anchors) == ("docs/operations.md", True), alert["alert"]
