"""Every series of a metric with one label exists from the start, at zero, and docs/operations.md lists every metric."""

import ast
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry

from access.tokens import Code
from alarms.metrics import AlarmsMetrics
from auth.metrics import AuthMetrics
from broker.alarms import AlarmState
from broker.commands import Outcome as CommandOutcome
from broker.interface import BrokerError
from gateway.metrics import GatewayMetrics
from persister.batch import Outcome
from persister.compaction.metrics import CompactorMetrics
from persister.metrics import PersisterMetrics
from reader.live.feed import EndReason
from reader.metrics import ReaderMetrics
from simulator.metrics import SimulatorMetrics
from simulator.reading import ReadingOutcome as Settled

ROOT = Path(__file__).parent.parent


def written(files: str, called: str, argument: int = 0) -> set[str]:
    """Return the string values of this argument in all calls of `called` in these files."""
    found = set()
    for file in ROOT.glob(files):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and name_of(node.func) == called and len(node.args) > argument:
                found |= texts(node.args[argument])
    assert found, f"nothing in {files} calls {called}"
    return found


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def texts(node: ast.expr) -> set[str]:
    if isinstance(node, ast.IfExp):
        return texts(node.body) | texts(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def metrics_of(service: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    match service:
        case "gateway":
            GatewayMetrics(registry)
        case "persister":
            PersisterMetrics(registry)
        case "compactor":
            CompactorMetrics(registry)
        case "reader":
            ReaderMetrics(registry)
        case "simulator":
            SimulatorMetrics(registry)
        case "auth":
            AuthMetrics(registry)
        case "alarms":
            AlarmsMetrics(registry)
    return registry


def promised(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Return the values of the one label of each metric that has one, by the metric's name."""
    found: dict[str, set[str]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            found.setdefault(metric.name, set()).update(value for key, value in sample.labels.items() if key != "le")
    return found


# The label values that each metric may have, from the code that sets them.
COUNTED: dict[str, tuple[str, set[str]]] = {
    "tidegate_gateway_connects": (
        "gateway",
        {"accepted", *written("gateway/admission.py", "AdmissionDenied"), *get_args(Code)},
    ),
    "tidegate_gateway_cut": ("gateway", written("gateway/**/*.py", "close_for") | written("gateway/**/*.py", "abort")),
    "tidegate_gateway_limited": ("gateway", {"device", "owner"}),
    "tidegate_gateway_ended": ("gateway", written("gateway/from_devices.py", "_end", 1)),
    "tidegate_gateway_messages": ("gateway", {"confirmed", *(kind.__name__ for kind in BrokerError.__subclasses__())}),
    "tidegate_gateway_commands": ("gateway", set(get_args(CommandOutcome))),
    "tidegate_gateway_receipts": ("gateway", written("gateway/receipts.py", "labels")),
    "tidegate_persister_readings": (
        "persister",
        {outcome.value for outcome in Outcome if outcome is not Outcome.RETRY},
    ),
    "tidegate_persister_retries": ("persister", written("persister/**/*.py", "run")),
    "tidegate_persister_dead_letters": (
        "persister",
        {"refused", *written("broker/**/*.py", "DecodeError"), *written("persister/**/*.py", "DecodeError")},
    ),
    "tidegate_persister_removed": ("persister", written("persister/**/*.py", "labels")),
    "tidegate_reader_query_seconds": ("reader", written("reader/http/*.py", "admitted", 1)),
    "tidegate_reader_readings": ("reader", written("reader/**/*.py", "labels")),
    "tidegate_reader_live_ended": ("reader", set(get_args(EndReason))),
    "tidegate_reader_busy": ("reader", {"owner", "everybody"}),
    "tidegate_simulator_readings": ("simulator", {outcome.value for outcome in Settled}),
    "tidegate_alarms_changes": ("alarms", set(get_args(AlarmState))),
    "tidegate_alarms_deliveries": ("alarms", written("alarms/deliveries/sender.py", "labels")),
    "tidegate_alarms_emails": ("alarms", {"sent", "refused", "failed"}),
    "tidegate_auth_rate_limited": ("auth", written("auth/login_throttle.py", "Limit")),
}


SERVICES = ["gateway", "persister", "compactor", "reader", "simulator", "auth", "alarms"]


def documented(service: str) -> set[tuple[str, str, str]]:
    """Return the name, the type and the label of each metric of this service in the table of docs/operations.md."""
    page = (ROOT / "docs" / "operations.md").read_text()
    return set(re.findall(rf"^\| `(tidegate_{service}_\w+)` \| (\w+) \| `?(\w*|–)`? \|", page, re.MULTILINE))


@pytest.mark.parametrize("service", SERVICES)
def test_the_operations_page_lists_every_metric(service: str) -> None:
    exported = set()
    for metric in metrics_of(service).collect():
        (label,) = {name for sample in metric.samples for name in sample.labels} - {"le"} or {"–"}
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        exported.add((name, metric.type, label))
    assert documented(service) == exported


@pytest.mark.parametrize("metric", COUNTED)
def test_whatever_can_be_counted_is_there_at_zero(metric: str) -> None:
    service, counted = COUNTED[metric]
    assert counted
    assert counted - promised(metrics_of(service)).get(metric, set()) == set()


@pytest.mark.parametrize("service", SERVICES)
def test_every_metric_with_a_label_is_looked_at_or_counts_where_it_stands(service: str) -> None:
    labelled = {name for name, values in promised(metrics_of(service)).items() if values}
    held = {name for name, (of, _) in COUNTED.items() if of == service}
    assert labelled - held <= {"tidegate_gateway_readings", *(name for name in labelled if service == "auth")}


def test_what_the_audit_log_counts_is_there_at_zero() -> None:
    values: set[Any] = set().union(*promised(metrics_of("auth")).values())
    assert written("auth/audit.py", "labels") - values == set()
