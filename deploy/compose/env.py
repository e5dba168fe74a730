"""Writes what `docker compose` needs and nobody should choose: `.env` with random secrets, and RabbitMQ's users.

What is there already stays, so that a second `make up` finds the same secrets; new names are added. `.env` is for its
user only. RabbitMQ gets salted hashes, in a file that its own user in the container can read.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENV = ROOT / ".env"
RIGHTS = ROOT / "deploy" / "rabbitmq" / "rights.json"
DEFINITIONS = ROOT / "deploy" / "rabbitmq" / "definitions.json"
SETTINGS = {
    "TIDEGATE_ADDRESS": "127.0.0.1",
    "TIDEGATE_PORT": "8080",
}
SECRETS = (
    "SIGNING_KEY_SECRET",
    "ALARM_SECRET",
    "MYSQL_ROOT_PASSWORD",
    "MYSQL_PASSWORD",
    "MONGODB_KEY",
    "MONGODB_ROOT_PASSWORD",
    "MONGODB_PERSISTER_PASSWORD",
    "MONGODB_READER_PASSWORD",
    "RABBITMQ_AUTH_PASSWORD",
    "RABBITMQ_GATEWAY_PASSWORD",
    "RABBITMQ_PERSISTER_PASSWORD",
    "RABBITMQ_READER_PASSWORD",
    "RABBITMQ_ALARMS_PASSWORD",
    "RABBITMQ_OPERATOR_PASSWORD",
    "GRAFANA_PASSWORD",
)
HEAD = """\
# Written by `make up`, with random secrets. Keep it: the databases were made with them.
# TIDEGATE_ADDRESS is where the proxy listens; 0.0.0.0 is every interface. For TLS see docs/operations.md.
"""


def read_env(text: str) -> dict[str, str]:
    """Return the variables of a `.env` file."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in lines}


def unfit(env: dict[str, str]) -> list[str]:
    """Return the secrets that would not stand unchanged in an address, in a shell and in this file."""
    return [name for name in SECRETS if not re.fullmatch(r"[A-Za-z0-9_.~-]+", env[name])]


def write_env(file: Path) -> dict[str, str]:
    """Add what is missing to `.env`; return all of it."""
    text = file.read_text() if file.exists() else HEAD
    known = read_env(text)
    fresh = {**SETTINGS, **{name: secrets.token_hex(24) for name in SECRETS}}
    missing = {name: value for name, value in fresh.items() if name not in known}
    if missing:
        text = text.rstrip("\n") + "\n" + "".join(f"{name}={value}\n" for name, value in missing.items())
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
        file.chmod(0o600)
        sys.stderr.write(f"{file.name}: {len(missing)} values written\n")
    return known | missing


def hashed(password: str) -> str:
    """Return a password as RabbitMQ keeps it (rabbit_password_hashing_sha256)."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def definitions(env: dict[str, str], rights: dict[str, dict[str, str]]) -> dict[str, object]:
    """Return RabbitMQ's users and what each may do; queues and exchanges are declared by `python -m broker declare`."""
    users = [
        {
            "name": name,
            "password_hash": hashed(env[f"RABBITMQ_{name.upper()}_PASSWORD"]),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": ["administrator"] if name == "operator" else [],
        }
        for name in rights
    ]
    permissions = [{"user": name, "vhost": "/", **allowed} for name, allowed in rights.items()]
    return {"vhosts": [{"name": "/"}], "users": users, "permissions": permissions}


def main() -> None:
    """Write both files."""
    env = write_env(ENV)
    if found := unfit(env):
        sys.exit(f"{ENV.name}: {', '.join(found)}: take letters, digits and _.~- only, without quotes")
    made = definitions(env, json.loads(RIGHTS.read_text()))
    DEFINITIONS.write_text(json.dumps(made, indent=2) + "\n")
    DEFINITIONS.chmod(0o644)


if __name__ == "__main__":
    main()
