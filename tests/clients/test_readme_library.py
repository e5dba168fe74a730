"""README's device with the Python library: one that is started before its gateway, and without Tidegate's packages."""

import asyncio
import os
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from readings.document import decode_document
from testing.servers.ports import free_port
from tests.clients.readme_devices import library_example
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, gateway
from tests.integration.services import ROOT


async def test_it_sends_its_reading_as_soon_as_the_gateway_is_there(tmp_path: Path, fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    port = free_port()
    (tmp_path / "device").symlink_to(ROOT / "device")
    environment = os.environ | {"URL": f"http://127.0.0.1:{port}", "TOKEN": ISSUING.device()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", library_example()), cwd=tmp_path, env=environment, stderr=PIPE
    )
    ending = asyncio.create_task(process.communicate())
    await asyncio.sleep(3)
    assert not ending.done()
    async with gateway(fake_broker, at_port=port):
        _, errors = await asyncio.wait_for(ending, 30)
    assert process.returncode == 0, errors.decode()
    (document,) = (decode_document(body) for one in fake_broker.outgoing.messages for body in one.documents())
    assert document["value"] == 21.5
    assert document["_id"]["sensorType"] == "temperature"
    assert (tmp_path / "readings.db").exists()


def test_it_has_few_lines() -> None:
    lines = [line for line in library_example().splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) == 5


def test_pip_installs_it_without_the_rest(tmp_path: Path) -> None:
    """It builds in an environment of its own, which needs a package index."""
    shutil.copytree(ROOT / "device", tmp_path / "source", ignore=shutil.ignore_patterns("js", "__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "target")]
    done = subprocess.run(
        [*command, str(tmp_path / "source")], capture_output=True, text=True, check=False, timeout=200
    )
    if "No matching distribution" in done.stderr and not os.environ.get("CI"):
        pytest.skip("there is no package index")
    assert done.returncode == 0, done.stderr
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'target')!r}); import device; print(device.__file__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path / "target" / "device") in done.stdout
    assert {one.name for one in (tmp_path / "target").iterdir() if one.suffix != ".dist-info"} == {"device"}
