"""`python -m tests.compose`: needs a Docker Engine with Compose v2 and the base images; exit code 1 when it fails.

From a fresh checkout: `make up`; then 100 simulated devices stream through the proxy while services are scaled and
killed, and readings are sealed and compacted meanwhile; what was acknowledged is counted in an export; `make down`, and
up again, with nothing lost. Then everything is compacted, a backup is taken, everything is removed, and the backup
restored.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.compose.history import access_token, count_readings
from tests.compose.stack import SERVICES, Stack, StackError
from tests.integration.services import ROOT

PERSON = {"name": "Ada", "email": "ada@example.com", "password": "correct horse battery"}
DEVICES, RATE = 100, 5
DOWN_WITHIN_S = 10.0
STORED_WITHIN_S = 60.0


def step(what: str, do: Callable[[], Any] | None = None) -> Any:
    """Print the step and how long it took."""
    print(f"{what} ... ", end="", flush=True)
    started = time.monotonic()
    result = do() if do is not None else None
    print(f"{time.monotonic() - started:.1f} s{'' if result is None else f', {result}'}", flush=True)
    return result


def require(holds: bool, what: str) -> None:
    if not holds:
        raise StackError(what)


def check_containers(stack: Stack) -> str:
    """Check that all are healthy, none restarted, none runs as root, and root filesystems are read-only."""
    containers = stack.containers()
    found = sorted({one["Config"]["Labels"]["com.docker.compose.service"] for one in containers})
    require(found == list(SERVICES), f"these run: {found}")
    require(len(containers) == len(SERVICES) + 2, "two gateways and two persisters")
    for one in containers:
        name = one["Name"]
        require(one["State"]["Health"]["Status"] == "healthy", f"{name} is {one['State']['Health']['Status']}")
        require(one["RestartCount"] == 0, f"{name} was restarted {one['RestartCount']} times")
        require(one["HostConfig"]["ReadonlyRootfs"], f"{name} may write to its root")
        user = Path(f"/proc/{one['State']['Pid']}/status").read_text().partition("Uid:")[2].split()[0]
        require(user != "0", f"{name} runs as root")
        published = [port for port, places in one["NetworkSettings"]["Ports"].items() if places]
        require(not published or "proxy" in name, f"{name} publishes {published}")
    return f"{len(containers)} containers"


async def sign_up(url: str) -> None:
    """Create the account."""
    async with (
        aiohttp.ClientSession(url, raise_for_status=True) as session,
        session.post("/user/signup", json=PERSON) as answer,
    ):
        await answer.json()


async def count_stored(url: str) -> int:
    """Log in, with the account's password and a token of the stored key, and count what the account has."""
    return await count_readings(url, await access_token(url, PERSON["email"], PERSON["password"]))


def streaming(stack: Stack) -> "subprocess.Popen[str]":
    """Start the simulator: 100 devices until it is stopped."""
    command = [sys.executable, "-m", "simulator", "--url", stack.url, "--email", PERSON["email"], "--json"]
    return subprocess.Popen(
        [*command, "--devices", str(DEVICES), "--rate", str(RATE)],
        cwd=ROOT,
        env=os.environ | {"TIDEGATE_PASSWORD": PERSON["password"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def scale_and_kill(stack: Stack) -> None:
    """Scale persisters 2 to 4 to 1 and gateways 2 to 3 to 2, and kill one container of each service."""
    step("persisters 2 -> 4, gateways 2 -> 3", lambda: stack.scale(persister=4, gateway=3))
    time.sleep(3)
    step("persisters 4 -> 1, gateways 3 -> 2", lambda: stack.scale(persister=1, gateway=2))
    for service in SERVICES:
        step(f"one {service} is killed and comes back", lambda service=service: stack.crash(service))  # type: ignore[misc]
        time.sleep(2)


def verify_readings(stack: Stack, simulator: "subprocess.Popen[str]") -> str:
    """Stop the simulator, and compare acknowledged readings with those of an export."""
    simulator.terminate()
    summary = json.loads(simulator.communicate(timeout=60)[0].splitlines()[-1])
    require(summary["acked"] > 1000, f"too few readings were acknowledged: {summary}")
    require(summary["rejected"] == 0, f"readings were rejected: {summary}")
    deadline = time.monotonic() + STORED_WITHIN_S
    while (stored := asyncio.run(count_stored(stack.url))) < summary["acked"] and time.monotonic() < deadline:
        time.sleep(0.5)
    require(
        stored >= summary["acked"],
        f"{summary['acked'] - stored} of {summary['acked']} acknowledged readings are not stored",
    )
    require(stored <= summary["sent"], f"{stored} readings are stored, only {summary['sent']} distinct ones were sent")
    return (
        f"{summary['sent']} sent, {summary['acked']} acknowledged, {stored} stored, {summary['reconnects']} reconnects"
    )


def verify_compaction(stack: Stack, stored: int) -> str:
    """Check that readings were sealed and compacted during the run, then compact everything and count again."""
    before = stack.sealed_so_far()
    require(before["seals"] >= 2, f"too little was sealed: {before}")
    require(before["blocks"] + before["pieces"] > 0, f"nothing was compacted: {before}")
    require(before["givenUp"] == 0, f"sealed collections were given up: {before}")
    stack.compact_all()
    after = stack.sealed_so_far()
    require(after["waiting"] == 0, f"sealed collections wait after `compact --all`: {after}")
    found = asyncio.run(count_stored(stack.url))
    require(found == stored, f"{found} of {stored} readings are found after `compact --all`")
    return f"{after['seals']} seals, {after['blocks']} blocks, {after['pieces']} pieces, {found} readings"


def restored(stack: Stack, stored: int) -> str:
    """Back up, remove everything, restore: accounts and readings are back, and users can log in."""
    with tempfile.TemporaryDirectory(prefix="tidegate-backup-") as backup:
        stack.make("backup", backup)
        with suppress(StackError):
            stack.make("restore", backup)
            raise AssertionError("restore did not refuse a stack that holds data")
        stack.make("down", "--volumes")
        (stack.folder / ".env").unlink()
        stack.make("restore", backup)
    stack.make("up")
    found = asyncio.run(count_stored(stack.url))
    require(found == stored, f"{found} of {stored} readings are stored after the restore")
    return f"{found} readings"


def run(stack: Stack) -> None:
    step("make up", lambda: stack.make("up") and None)
    step("healthy, none restarted, none as root, roots read-only", lambda: check_containers(stack))
    require(stack.config_warnings() == "", f"docker compose config: {stack.config_warnings()}")
    asyncio.run(sign_up(stack.url))
    simulator = streaming(stack)
    try:
        time.sleep(5)
        scale_and_kill(stack)
        summary = step("every acknowledged reading is stored, once", lambda: verify_readings(stack, simulator))
    finally:
        if simulator.poll() is None:
            simulator.kill()
        simulator.wait()
    stored = int(summary.split(" acknowledged, ")[1].split()[0])
    took = stack.make("down")
    print(f"make down ... {took:.1f} s")
    require(took <= DOWN_WITHIN_S, f"make down took {took:.1f} s, allowed {DOWN_WITHIN_S:g}")
    step("make up again", lambda: stack.make("up") and None)
    found = asyncio.run(count_stored(stack.url))
    require(found == stored, f"{found} of {stored} readings are stored after it")
    step("sealed, compacted, and still the same", lambda: verify_compaction(stack, stored))
    step("backup, everything removed, restore, make up", lambda: restored(stack, stored))
    print("nothing was lost, nothing is stored twice")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tidegate-compose-") as folder:
        try:
            with Stack(Path(folder)) as stack:
                run(stack)
        except StackError as error:
            print(f"\nFAILED: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
