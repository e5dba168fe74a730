"""What is measured: the gateway as its operators run it, and the servers that it is measured beside."""

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

from bench.processes import ROOT, BenchError, Speaking, Started
from testing.issuer import ISSUER, Issuer
from testing.servers.ports import free_port
from testing.servers.rabbitmq import RabbitMQServer

NODE_FOLDER = ROOT / "bench" / "peers" / "node"
NAMES = ("gateway", "node", "stock")
DEVICES_AN_OWNER = 100


@dataclass(frozen=True)
class Peer:
    """A running server and the load process that belongs to it."""

    name: str
    server: Started
    load: Speaking
    ops_port: int | None = None


class Stage:
    """What peers need around them: a folder for logs, a RabbitMQ, and an issuer of tokens that answers for its keys."""

    def __init__(self, folder: Path, rabbitmq: RabbitMQServer, keys_port: int, issuer: Issuer) -> None:
        self.folder = folder
        self.rabbitmq = rabbitmq
        self.broker_url = rabbitmq.create_vhost()
        self._keys_port = keys_port
        self.issuer = issuer

    @property
    def auth_url(self) -> str:
        """Where keys and revocations are answered for."""
        return f"http://127.0.0.1:{self._keys_port}"

    def user_token(self, owner: str) -> str:
        """Return a token of a user who may read."""
        return self.issuer.user(sub=owner, owner=owner)

    @contextmanager
    def peer(self, name: str, devices: int) -> Iterator[Peer]:
        """Run one of `NAMES`, with a load process that can play that many devices."""
        port, ops_port = free_port(), free_port()
        command, environment = self._command(name, port, ops_port)
        log = self.folder / f"{name}.log"
        load = [sys.executable, "-m", "bench.load", str(port)]
        with (
            Started(command, log=log, environment=environment) as server,
            Speaking(load, log=self.folder / f"{name}-load.log") as speaking,
        ):
            server.wait_for_port(ops_port if name == "gateway" else port)
            server.wait_for_port(port)
            speaking.say([self.device_auth(number) if name == "gateway" else {} for number in range(devices)])
            yield Peer(name, server, speaking, ops_port if name == "gateway" else None)

    def empty_queue(self) -> None:
        """Take out what was published: nothing consumes here, and a queue of gigabytes would be another measurement."""
        vhost = self.broker_url.rpartition("/")[2]
        self.rabbitmq.api("DELETE", f"queues/{vhost}/tidegate.readings/contents")

    def _command(self, name: str, port: int, ops_port: int) -> tuple[list[str], dict[str, str]]:
        if name == "node":
            return node_command(NODE_FOLDER, "acknowledge.js"), {"PORT": str(port), "NODE_ENV": "production"}
        if name == "stock":
            return [sys.executable, "-m", "bench.peers.python.acknowledge"], {"PORT": str(port)}
        return [sys.executable, "-m", "gateway"], self.gateway_settings(port, ops_port)

    def gateway_settings(self, port: int, ops_port: int) -> dict[str, str]:
        """Return the environment of a gateway that meets no limit."""
        return {
            "BROKER_URL": self.broker_url,
            "AUTH_URL": self.auth_url,
            "TOKEN_ISSUER": ISSUER,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "OPS_HOST": "127.0.0.1",
            "OPS_PORT": str(ops_port),
            # A peer has no limits to run into.
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
        """Return what a device connects with."""
        device = f"device-{number}"
        token = self.issuer.device(sub=device, device=device, owner=f"owner-{number // DEVICES_AN_OWNER}")
        return {"token": token}


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Start what peers need; BenchError when something is missing on this machine."""
    issuer = Issuer()
    with RabbitMQServer(folder / "rabbitmq") as rabbitmq, _answering(issuer) as keys_port:
        yield Stage(folder, rabbitmq, keys_port, issuer)


def node_command(folder: Path, script: str) -> list[str]:
    """Return the command of a script, its packages installed beside it; BenchError where Node.js is missing."""
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
def _answering(issuer: Issuer) -> Iterator[int]:
    """Answer for the issuer's keys and revocations, as `auth` does; yields the port."""
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
            """Keep standard error for what a person reads."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
