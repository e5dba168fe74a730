"""deploy/kubernetes, base and overlays, against the schemas of Kubernetes and KEDA, and against the services."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from broker.rabbitmq.address import parse_hosts
from runtime.settings import table
from testing.node import node_with
from tests.integration.services import ROOT
from tools.settings_table import SERVICES

HERE = Path(__file__).parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
BASE = KUBERNETES / "base"
OVERLAYS = sorted((KUBERNETES / "overlays").iterdir())
VERSION = "1.31"
FOREIGN = (
    "keda.sh/",
    "rabbitmq.com/",
    "mongodbcommunity.mongodb.com/",
    "mysql.oracle.com/",
    "kustomize.config.k8s.io/",
)
Resource = dict[str, Any]


def resources_of(folder: Path) -> list[Resource]:
    """Return the resources of a kustomization and those it includes, with its patches merged."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found: list[Resource] = []
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        found += resources_of(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for patch in kustomization.get("patches", ()):
        for part in yaml.safe_load_all((folder / patch["path"]).read_text()):
            (place,) = [number for number, one in enumerate(found) if identity(one) == identity(part)]
            found[place] = merged(found[place], part)
    for generator in kustomization.get("configMapGenerator", ()):
        files = {}
        for item in generator["files"]:
            name, _, path = item.rpartition("=")
            files[name or path] = (folder / path).read_text()
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": files})
    return found


def merged(one: Any, patch: Any) -> Any:
    """A strategic merge: objects by key, lists of named items by name, everything else replaced."""
    if isinstance(one, dict) and isinstance(patch, dict):
        return {key: merged(one.get(key), patch[key]) if key in patch else one[key] for key in {**one, **patch}}
    if isinstance(one, list) and isinstance(patch, list):
        named = {item["name"]: item for item in patch}
        return [merged(item, named[item["name"]]) if item["name"] in named else item for item in one]
    return deepcopy(patch)


def identity(resource: Resource) -> tuple[str, str]:
    return resource["kind"], resource["metadata"]["name"]


def kinds(resources: list[Resource], kind: str) -> dict[str, Resource]:
    return {one["metadata"]["name"]: one for one in resources if one["kind"] == kind}


@pytest.fixture(params=[BASE, *OVERLAYS], ids=lambda folder: folder.name)
def resources(request: pytest.FixtureRequest) -> list[Resource]:
    return resources_of(request.param)


def test_every_file_is_listed_and_every_listed_one_is_there() -> None:
    for folder in (BASE, *OVERLAYS):
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        listed = {*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", ()))}
        files = {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert files == {name for name in listed if not name.startswith("..")}


def test_what_kubernetes_knows_follows_its_schemas(resources: list[Resource]) -> None:
    checked = 0
    for resource in resources:
        if not resource["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(resource, VERSION, strict=True)
            checked += 1
    assert checked >= 19


def test_an_invalid_manifest_is_detected() -> None:
    invalid = kinds(resources_of(BASE), "Deployment")["gateway"]
    invalid["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(invalid, VERSION, strict=True)


def test_what_keda_knows_follows_its_schemas(resources: list[Resource]) -> None:
    node = node_with(HERE, "@kubernetes-models/keda")
    ours = [one for one in resources if one["apiVersion"].startswith("keda.sh/")]
    assert {one["kind"] for one in ours} == {"ScaledObject", "TriggerAuthentication"}

    def validated(these: list[Resource]) -> list[str]:
        done = subprocess.run(
            [node, "validate.js"], cwd=HERE, input=json.dumps(these), capture_output=True, text=True, check=True
        )
        errors: list[str] = json.loads(done.stdout)
        return errors

    assert validated(ours) == []
    broken = deepcopy(ours)
    broken[0]["spec"].pop("scaleTargetRef", None)
    broken[0]["spec"].pop("secretTargetRef", None)
    broken[0]["spec"]["triggers"] = "many"
    assert len(validated(broken)) == 1


def containers(resources: list[Resource]) -> Iterator[tuple[str, Resource, Resource]]:
    for kind in ("Deployment", "Job"):
        for name, one in kinds(resources, kind).items():
            pod = one["spec"]["template"]["spec"]
            for container in (*pod.get("initContainers", ()), *pod["containers"]):
                yield name, pod, container


def test_nothing_runs_as_root_or_writes_to_its_root_or_without_bounds(resources: list[Resource]) -> None:
    for name, pod, container in containers(resources):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        # Otherwise each Service of the namespace sets variables: GATEWAY_PORT=tcp://…
        assert pod["enableServiceLinks"] is False, name
        rights = container["securityContext"]
        assert (rights["readOnlyRootFilesystem"], rights["allowPrivilegeEscalation"]) == (True, False), name
        assert rights["capabilities"] == {"drop": ["ALL"]}, name
        assert {"requests", "limits"} <= set(container["resources"]), name


def test_each_service_has_what_operators_expect_of_it(resources: list[Resource]) -> None:
    names = {"alarms", "auth", "gateway", "persister", "reader", "proxy"}
    deployments = kinds(resources, "Deployment")
    assert set(deployments) == names | {"operator", "compactor"}
    # A budget for the one compactor would keep its node from being drained, and nothing waits for it.
    assert set(kinds(resources, "PodDisruptionBudget")) == names
    for_prometheus = {f"{name}-ops" for name in {*names, "compactor"} - {"proxy"}}
    assert set(kinds(resources, "Service")) == names - {"persister"} | for_prometheus
    for name in for_prometheus:
        assert kinds(resources, "Service")[name]["spec"]["clusterIP"] == "None"
    for name in names - {"persister"}:  # a Service's pods wait until no requests are routed to them
        (container,) = deployments[name]["spec"]["template"]["spec"]["containers"]
        assert "preStop" in container["lifecycle"], name
    # `kubectl apply` must not reset what an autoscaler sets.
    assert {name for name, one in deployments.items() if "replicas" not in one["spec"]} == {"gateway", "persister"}
    scaled = kinds(resources, "HorizontalPodAutoscaler")["gateway"]["spec"]["scaleTargetRef"]
    assert scaled["name"] == "gateway"
    triggers = kinds(resources, "ScaledObject")["persister"]["spec"]["triggers"]
    assert {trigger["type"] for trigger in triggers} == {"rabbitmq", "prometheus"}
    for name, _, container in containers(resources):
        if name in {*names, "compactor"} and container["name"] == name:
            assert {"readinessProbe", "livenessProbe"} <= set(container), name


def test_a_collection_that_was_given_up_does_not_restart_the_compactor(resources: list[Resource]) -> None:
    (container,) = kinds(resources, "Deployment")["compactor"]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe].get("httpGet", {}).get("path") != "/readyz"


def test_each_port_for_prometheus_is_open_to_it_and_is_the_one_that_the_process_takes(
    resources: list[Resource],
) -> None:
    allowed: dict[str, set[int]] = {}
    for one in kinds(resources, "NetworkPolicy").values():
        selector = one["spec"]["podSelector"]
        labels = [selector["matchLabels"]["app.kubernetes.io/name"]] if "matchLabels" in selector else []
        labels += [name for found in selector.get("matchExpressions", ()) for name in found["values"]]
        ports = {port["port"] for rule in one["spec"]["ingress"] for port in rule.get("ports", ())}
        for label in labels:
            allowed.setdefault(label, set()).update(ports)
    for name, _, container in containers(resources):
        settings = SERVICES.get(command_of(container))
        if settings is None or name == "declare":
            continue
        (port,) = (int(default) for variable, default, _ in table(settings) if variable == "OPS_PORT")
        assert {"name": "ops", "containerPort": port} in container["ports"]
        assert port in allowed[name], name
        pod = kinds(resources, "Deployment")[name]["spec"]["template"]["metadata"]
        assert pod["annotations"]["prometheus.io/port"] == str(port)


def test_each_variable_is_one_that_the_service_takes(resources: list[Resource]) -> None:
    checked = set()
    for name, _, container in containers(resources):
        command = command_of(container)
        if command in SERVICES:
            given = {variable["name"] for variable in container["env"]}
            known = {variable for variable, _, _ in table(SERVICES[command])}
            assert given <= known, f"{name}: {given - known}"
            checked.add((name, command))
    services = {(name, name) for name in ("alarms", "auth", "gateway", "persister", "reader")}
    assert checked == services | {("compactor", "persister compact")}


def command_of(container: Resource) -> str:
    """Return what `python -m` runs in a container, with a command if it has one; an empty string if it is not ours."""
    args = container.get("args", [])
    return " ".join(args[2:]) if args[:2] == ["python", "-m"] else ""


def operators() -> list[Resource]:
    files = sorted((KUBERNETES / "operators").glob("*.yaml"))
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


def test_what_operators_of_databases_take_is_yaml_of_their_kinds() -> None:
    found = {}
    for one in operators():
        if not one["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(one, VERSION, strict=True)
            continue
        found[one["kind"]] = one["spec"].get("replicas") or one["spec"].get("members") or one["spec"]["instances"]
    assert found == {"RabbitmqCluster": 3, "MongoDBCommunity": 3, "InnoDBCluster": 3}


def test_databases_live_in_a_namespace_that_lets_their_pods_in() -> None:
    namespaces = kinds(operators(), "Namespace")
    (data,) = namespaces
    assert {one["metadata"].get("namespace", data) for one in operators()} == {data}
    assert "pod-security.kubernetes.io/enforce" not in namespaces[data]["metadata"]["labels"]


def references(one: Any, keys: tuple[str, ...]) -> Iterator[Resource]:
    """Yield the references under these keys anywhere in a resource."""
    if isinstance(one, dict):
        for key, value in one.items():
            if key in keys:
                yield value if isinstance(value, dict) else {"name": value}
            yield from references(value, keys)
    elif isinstance(one, list):
        for value in one:
            yield from references(value, keys)


def test_the_secrets_that_are_made_are_those_that_are_read() -> None:
    script = KUBERNETES / "make_secrets.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    made = {}
    for one in json.loads(done.stdout)["items"]:
        kubernetes_validate.validate(one, VERSION, strict=True)
        values = {key: base64.b64decode(value).decode() for key, value in one["data"].items()}
        made[one["metadata"]["namespace"], one["metadata"]["name"]] = values
    referenced = {("tidegate", one["name"]): one for one in references(resources_of(BASE), ("secretKeyRef",))}
    keys = ("secretKeyRef", "passwordSecretRef", "secretName")
    referenced |= {("tidegate-data", one["name"]): one for one in references(operators(), keys)}
    assert set(referenced) | {("tidegate-data", "rabbitmq-users")} == set(made)
    for one in references(resources_of(BASE), ("secretKeyRef",)):
        assert one["key"] in made["tidegate", one["name"]]

    users = json.loads(made["tidegate-data", "rabbitmq-users"]["definitions.json"])
    rights = json.loads((ROOT / "deploy" / "rabbitmq" / "rights.json").read_text())
    assert {user["name"] for user in users["users"]} == set(rights)
    password = made["tidegate-data", "mongodb-reader"]["password"]
    assert made["tidegate", "tidegate-reader"]["readings-url"].startswith(f"mongodb://reader:{password}@mongodb-0.")
    # One name, as KEDA takes no list; it has the address of each node, and resolves in KEDA's own namespace, too.
    for values in made.values():
        if url := values.get("broker-url"):
            assert [host.name for host in parse_hosts(url)] == ["rabbitmq-nodes.tidegate-data.svc.cluster.local"]


def test_compose_and_the_cluster_name_one_minor_version_of_rabbitmq() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["rabbitmq"]["image"]
    cluster = yaml.safe_load((KUBERNETES / "operators" / "rabbitmq.yaml").read_text())["spec"]["image"]
    assert compose == cluster
    assert re.fullmatch(r"rabbitmq:[0-9]+\.[0-9]+-management", compose), "a tag that moves to untested versions"


def test_quorum_queues_have_the_same_log_as_with_compose() -> None:
    cluster = yaml.safe_load((KUBERNETES / "operators" / "rabbitmq.yaml").read_text())
    lines = cluster["spec"]["rabbitmq"]["additionalConfig"].splitlines()
    (line,) = [one for one in lines if one.startswith("quorum_queue.wal_max_size_bytes")]
    assert line in (ROOT / "deploy" / "rabbitmq" / "rabbitmq.conf").read_text().splitlines()
