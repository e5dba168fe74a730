"""README's devices with the libraries, saved and run as it says: they are started before their gateway."""

import asyncio
import os
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from readings.document import decode_document
from testing.node import node_with
from testing.servers.ports import free_port
from tests.clients.readme_devices import file_names, library_example
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, gateway
from tests.integration.services import ROOT


def saved(language: str, folder: Path) -> list[str]:
    """Save the example as README's command names it; return the command. In Python the library is not beside it."""
    program = sys.executable if language == "python" else node_with(ROOT / "device" / "js", "socket.io-client")
    (name,) = file_names("python" if language == "python" else "node")
    place = folder / "installed" if language == "python" else folder
    place.mkdir(exist_ok=True)
    (place / "device").symlink_to(ROOT / "device")
    (folder / name).write_text(library_example(language))
    return [program, name]


@pytest.mark.parametrize(
    ("language", "value", "buffer"), [("python", 21.5, "readings.db"), ("js", 20.5, "readings.log")]
)
async def test_it_sends_its_reading_as_soon_as_the_gateway_is_there(
    language: str, value: float, buffer: str, tmp_path: Path, fake_broker: FakeBroker
) -> None:
    fake_broker.outgoing.auto_confirm = True
    port = free_port()
    environment = os.environ | {"URL": f"http://127.0.0.1:{port}", "TOKEN": ISSUING.device()}
    environment["PYTHONPATH"] = str(tmp_path / "installed")
    process = await asyncio.create_subprocess_exec(
        *saved(language, tmp_path), cwd=tmp_path, env=environment, stderr=PIPE
    )
    ending = asyncio.create_task(process.communicate())
    await asyncio.sleep(3)
    assert not ending.done(), await ending
    async with gateway(fake_broker, at_port=port):
        _, errors = await asyncio.wait_for(ending, 30)
    assert process.returncode == 0, errors.decode()
    (document,) = (decode_document(body) for one in fake_broker.outgoing.messages for body in one.documents())
    assert document["value"] == value
    assert document["_id"]["sensorType"] == "temperature"
    assert (tmp_path / buffer).exists()


def test_it_has_few_lines() -> None:
    lines = [
        line for line in library_example("python").splitlines() if line and not line.startswith(("import", "from"))
    ]
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
