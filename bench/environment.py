"""The environment of a benchmark: RabbitMQ, a token issuer, the gateway as operators run it, and its peers."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.processes import ROOT, BenchError, BenchProcess, LineProcess
from broker.topology import LANES
from testing.issuer import ISSUER, Issuer
from testing.servers.ports import free_port
from testing.servers.rabbitmq import RabbitMQServer

NODE_FOLDER = ROOT / "bench" / "peers" / "node"
NAMES = ("gateway", "node", "stock")
DEVICES_AN_OWNER = 100


@dataclass(frozen=True)
class Peer:
    """A running server and its load generator."""

    name: str
    server: BenchProcess
    load: LineProcess
    port: int
    ops_port: int | None = None


class Environment:
    """What peers need: a folder for logs, a RabbitMQ, and a token issuer that serves its keys."""

    def __init__(self, folder: Path, rabbitmq: RabbitMQServer, keys_port: int, issuer: Issuer) -> None:
        self.folder = folder
        self.rabbitmq = rabbitmq
        self.broker_url = rabbitmq.create_vhost()
        self._keys_port = keys_port
        self.issuer = issuer
        self._queues = {queue.name for queue in LANES}

    @property
    def auth_url(self) -> str:
        """The URL that serves keys and revocations."""
        return f"http://127.0.0.1:{self._keys_port}"

    def user_token(self, owner: str) -> str:
        """Return a token of a user with read access."""
        return self.issuer.user(sub=owner, owner=owner)

    @contextmanager
    def peer(self, name: str, devices: int, folder: Path = ROOT) -> Iterator[Peer]:
        """Run one of `NAMES`, with a load generator for `devices` devices; `folder`: a checkout of the gateway."""
        port, ops_port = free_port(), free_port()
        command, environment = self._command(name, port, ops_port)
        log = self.folder / f"{name}.log"
        load = [sys.executable, "-m", "bench.load", str(port)]
        if name == "node":
            self._queues.add(environment["QUEUE"])
        with (
            BenchProcess(command, log=log, environment=environment, folder=folder) as server,
            LineProcess(load, log=self.folder / f"{name}-load.log") as speaking,
        ):
            server.wait_for_port(ops_port if name == "gateway" else port)
            server.wait_for_port(port)
            speaking.send([{} if name == "stock" else self.device_auth(number) for number in range(devices)])
            yield Peer(name, server, speaking, port, ops_port if name == "gateway" else None)

    def empty_queue(self) -> None:
        """Purge the queues: nothing consumes here, and a queue of gigabytes would distort the measurement."""
        vhost = self.broker_url.rpartition("/")[2]
        for queue in self._queues:
            self.rabbitmq.api("DELETE", f"queues/{vhost}/{queue}/contents")

    def _command(self, name: str, port: int, ops_port: int) -> tuple[list[str], dict[str, str]]:
        if name == "node":
            environment = {"PORT": str(port), "AMQP_URL": self.broker_url, "QUEUE": "node-readings"}
            return node_command(NODE_FOLDER, "checked.js"), environment | self.node_settings()
        if name == "stock":
            return [sys.executable, "-m", "bench.peers.python.acknowledge"], {"PORT": str(port)}
        return [sys.executable, "-m", "gateway"], self.gateway_settings(port, ops_port)

    def node_settings(self) -> dict[str, str]:
        """Return the environment variables by which a peer in Node.js verifies tokens."""
        public_key = self.issuer.private.public_key()
        pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return {"PUBLIC_KEY_PEM": pem, "TOKEN_ISSUER": ISSUER, "NODE_ENV": "production"}

    def gateway_settings(self, port: int, ops_port: int) -> dict[str, str]:
        """Return the environment variables of a gateway without effective limits."""
        return {
            "BROKER_URL": self.broker_url,
            "AUTH_URL": self.auth_url,
            "TOKEN_ISSUER": ISSUER,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "OPS_HOST": "127.0.0.1",
            "OPS_PORT": str(ops_port),
            # Peers have no limits either.
            "MAX_CONNECTIONS_PER_DEVICE": "100000",
            "MAX_CONNECTIONS_PER_ADDRESS": "100000",
            "DEVICE_READINGS_PER_SECOND": "10000000",
            "DEVICE_READINGS_PER_MINUTE": "600000000",
            "DEVICE_BYTES_PER_SECOND": "2000000000",
            "DEVICE_BYTES_PER_MINUTE": "120000000000",
            "OWNER_READINGS_PER_SECOND": "10000000",
            "OWNER_READINGS_PER_MINUTE": "600000000",
            "OWNER_BYTES_PER_SECOND": "2000000000",
            "OWNER_BYTES_PER_MINUTE": "120000000000",
        }

    def device_auth(self, number: int) -> dict[str, str]:
        """Return the `auth` payload of a device."""
        device = f"device-{number}"
        token = self.issuer.device(sub=device, device=device, owner=f"owner-{number // DEVICES_AN_OWNER}")
        return {"token": token}


@contextmanager
def start_environment(folder: Path) -> Iterator[Environment]:
    """Start what peers need; BenchError if something is missing on this machine."""
    issuer = Issuer()
    with RabbitMQServer(folder / "rabbitmq") as rabbitmq, _serve_keys(issuer) as keys_port:
        yield Environment(folder, rabbitmq, keys_port, issuer)


def node_command(folder: Path, script: str) -> list[str]:
    """Return the command of a script, after installing its packages; BenchError without Node.js."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise BenchError("node and npm are not on PATH: peers on Node.js cannot run")
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    if not all((folder / "node_modules" / package).exists() for package in wanted):
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise BenchError(f"npm install in {folder.relative_to(ROOT)}: {done.stderr or done.stdout}")
    return [node, str(folder / script)]


@contextmanager
def _serve_keys(issuer: Issuer) -> Iterator[int]:
    """Serve the issuer's keys and revocations, as `auth` does; yields the port."""
    answers: dict[str, Any] = {
        "/.well-known/jwks.json": issuer.jwks(),
        "/revocations": {"items": [], "cursor": "0"},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Keep standard error for progress."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
