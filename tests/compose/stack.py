"""A separate checkout with a separate compose project, so that running projects are not affected."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testing.servers.ports import free_port
from tests.integration.services import ROOT

SERVICES = ("alarms", "auth", "compactor", "gateway", "mongodb", "mysql", "persister", "proxy", "rabbitmq", "reader")
HEALTHY_WITHIN_S = 120
# Some 500 readings arrive a second: a seal every ten seconds, with merges of pieces.
SEALING = {"SEAL_READINGS": "5000", "SEAL_SECONDS": "30"}


class StackError(Exception):
    """A requirement of the deployment is violated; the message says which."""


class Stack:
    """One compose project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._environment = os.environ | {
            "COMPOSE_PROJECT_NAME": f"tidegate-{secrets.token_hex(4)}",
            "TIDEGATE_PORT": str(self.port),
            "TIDEGATE_ADDRESS": "127.0.0.1",
            "PYTHON": sys.executable,
            **SEALING,
        }

    def __enter__(self) -> Self:
        files = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for name in filter(None, files.decode().split("\0")):
            if (ROOT / name).exists():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.folder / name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            print(self.compose("logs", "--no-color", "--tail", "15", check=False))
        self.compose("down", "--volumes", "--timeout", "2", check=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make(self, target: str, arguments: str = "") -> float:
        """Run a make target and return the seconds it took."""
        started = time.monotonic()
        self._run(["make", target, f"ARGS={arguments}"])
        return time.monotonic() - started

    def compose(self, *arguments: str, check: bool = True) -> str:
        return self._run(["docker", "compose", *arguments], check=check)

    def config_warnings(self) -> str:
        """Return the warnings and errors of `docker compose config`."""
        done = subprocess.run(
            ["docker", "compose", "--profile", "*", "config", "--quiet"],
            cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stderr + ("" if done.returncode == 0 else f"exit code {done.returncode}")

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """Return `docker inspect` of the running containers of a service, or of all."""
        ids = self.compose("ps", "--quiet", *([service] if service else [])).split()
        found = json.loads(self._run(["docker", "inspect", *ids])) if ids else []
        return [one for one in found if one["State"]["Running"]]

    def restarts(self) -> dict[str, int]:
        return {one["Name"]: one["RestartCount"] for one in self.containers() if one["RestartCount"]}

    def scale(self, **replicas: int) -> None:
        scales = [word for name, number in replicas.items() for word in ("--scale", f"{name}={number}")]
        self.compose("up", "--detach", "--no-recreate", "--wait", *scales)

    def crash(self, service: str) -> None:
        """Kill one container of a service as a crash would, and wait until it is healthy again."""
        before = self.containers(service)
        os.kill(before[0]["State"]["Pid"], signal.SIGKILL)
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while True:
            now = self.containers(service)
            again = any(one["Id"] == before[0]["Id"] and one["RestartCount"] > before[0]["RestartCount"] for one in now)
            if again and len(now) == len(before) and all(one["State"]["Health"]["Status"] == "healthy" for one in now):
                return
            if time.monotonic() > deadline:
                raise StackError(f"{service} did not come back within {HEALTHY_WITHIN_S} s")
            time.sleep(0.5)

    def sealed_so_far(self) -> dict[str, int]:
        """Return how many seals there were, how many wait, and how many documents the blocks and pieces are."""
        script = (
            "const tidegate = db.getSiblingDB('tidegate'), state = tidegate['readings.blocks'].findOne({_id: 'state'});"
            "print(JSON.stringify({seals: Number(state?.highest ?? 0), waiting: (state?.waiting ?? []).length,"
            " givenUp: (state?.waiting ?? []).filter(one => one.aside).length,"
            " blocks: tidegate['readings.columns'].countDocuments({}),"
            " pieces: tidegate['readings.pieces'].countDocuments({})}))"
        )
        login = 'mongosh --quiet --norc -u root -p "$MONGODB_ROOT_PASSWORD" admin --eval "$0"'
        found: dict[str, int] = json.loads(
            self.compose("exec", "-T", "mongodb", "bash", "-c", login, script).splitlines()[-1]
        )
        return found

    def compact_all(self) -> dict[str, Any]:
        """Seal and compact everything, as an operator does; return what the command prints."""
        command = ("python", "-m", "persister", "compact", "--all", "--json")
        done: dict[str, Any] = json.loads(
            self.compose("run", "--rm", "--no-TTY", "compactor", *command).splitlines()[-1]
        )
        return done

    def _run(self, command: list[str], *, check: bool = True) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False, timeout=900
        )
        if check and done.returncode:
            raise StackError(
                f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )
        return done.stdout
