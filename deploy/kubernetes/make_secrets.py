"""Prints the secrets of both namespaces, with random passwords, for `kubectl create -f -`.

`create`, not `apply`: where they exist already, kubectl says so and they stay. The host names are those of what is in
deploy/kubernetes/operators; with databases of your own, change them here. RabbitMQ's users and rights are Compose's.
"""

import base64
import json
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(DEPLOY / "compose"))

from env import RIGHTS, definitions  # noqa: E402

SERVICES = "tidegate"
DATA = "tidegate-data"
CLUSTER = f"{DATA}.svc.cluster.local"
# The operator's headless Service: the address of each node, so that a client leaves a silent one for another. The
# Service `rabbitmq` has a single address.
RABBITMQ = f"rabbitmq-nodes.{CLUSTER}"
MONGODB = ",".join(f"mongodb-{number}.mongodb-svc.{CLUSTER}:27017" for number in range(3))


def secret(namespace: str, name: str, values: Mapping[str, str]) -> dict[str, object]:
    """Return a Secret."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}


def made() -> list[dict[str, object]]:
    """Return all of them."""
    rights = json.loads(RIGHTS.read_text())
    rabbitmq = {name: secrets.token_hex(24) for name in rights}
    mongodb = {name: secrets.token_hex(24) for name in ("persister", "reader")}
    mysql_root, mysql = secrets.token_hex(24), secrets.token_hex(24)
    broker = {name: f"amqp://{name}:{password}@{RABBITMQ}/" for name, password in rabbitmq.items()}
    readings = {
        name: f"mongodb://{name}:{password}@{MONGODB}/?replicaSet=mongodb&authSource=admin"
        for name, password in mongodb.items()
    }
    users_sql = (
        "CREATE DATABASE IF NOT EXISTS tidegate;\n"
        "CREATE USER IF NOT EXISTS 'tidegate'@'%';\n"
        f"ALTER USER 'tidegate'@'%' IDENTIFIED BY '{mysql}';\n"
        "GRANT ALL ON tidegate.* TO 'tidegate'@'%';\n"
    )
    auth = {
        "database-url": f"mysql+aiomysql://tidegate:{mysql}@mysql.{CLUSTER}/tidegate",
        "signing-key-secret": secrets.token_hex(24),
        "broker-url": broker["auth"],
    }
    # No mail server can be invented: with both of the last two there is e-mail.
    alarms = {"broker-url": broker["alarms"], "alarm-secret": secrets.token_hex(24), "smtp-url": "", "email-from": ""}
    passwords = {f"RABBITMQ_{name.upper()}_PASSWORD": password for name, password in rabbitmq.items()}
    rabbitmq_users = {"definitions.json": json.dumps(definitions(passwords, rights))}
    root = {"rootUser": "root", "rootHost": "%", "rootPassword": mysql_root}
    return [
        secret(SERVICES, "tidegate-auth", auth),
        secret(SERVICES, "tidegate-gateway", {"broker-url": broker["gateway"]}),
        secret(SERVICES, "tidegate-alarms", alarms),
        *(
            secret(SERVICES, f"tidegate-{name}", {"broker-url": broker[name], "readings-url": readings[name]})
            for name in mongodb
        ),
        secret(SERVICES, "tidegate-operator", {"broker-url": broker["operator"]}),
        secret(DATA, "rabbitmq-users", rabbitmq_users),
        *(secret(DATA, f"mongodb-{name}", {"password": password}) for name, password in mongodb.items()),
        secret(DATA, "mysql-root", root),
        secret(DATA, "mysql-users", {"users.sql": users_sql}),
    ]


if __name__ == "__main__":
    json.dump({"apiVersion": "v1", "kind": "List", "items": made()}, sys.stdout, indent=2)
