"""The first moments of a process: what its imports leave out, and what is as before after them."""

import gc
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.start import quick_imports

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package that nothing has imported."""
    (tmp_path / "left_out_at_start.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "left_out_at_start", raising=False)
    return "left_out_at_start"


def test_what_is_left_out_is_missing_until_the_end(package: str) -> None:
    with quick_imports(package), pytest.raises(ModuleNotFoundError):
        importlib.import_module(package)
    assert package not in sys.modules
    assert importlib.import_module(package).__name__ == package


def test_a_failing_import_brings_back_what_was_left_out(package: str) -> None:
    with pytest.raises(ZeroDivisionError), quick_imports(package):
        raise ZeroDivisionError
    assert gc.isenabled()
    assert importlib.import_module(package).__name__ == package


def test_what_is_loaded_already_stays() -> None:
    with quick_imports("gc"):
        assert importlib.import_module("gc") is gc
    assert sys.modules["gc"] is gc


def test_nothing_is_collected_meanwhile_and_everything_is_afterwards() -> None:
    try:
        with quick_imports():
            assert not gc.isenabled()
        assert gc.isenabled()
        gc.disable()
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


@pytest.mark.parametrize("service", ["auth", "gateway", "onebox", "persister", "reader"])
def test_a_start_loads_no_package_that_the_service_has_no_use_for(service: str) -> None:
    command = f"import runpy, sys; sys.argv = ['{service}', '--help']\n"
    command += f"try: runpy.run_module('{service}', run_name='__main__', alter_sys=True)\n"
    command += "except SystemExit as stop: print('ended with', stop.code, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    words = done.stdout.rpartition("ended with ")[2].split()
    assert words[0] == "0", done.stderr
    assert {"structlog", "msgspec"} <= set(words)
    assert {"rich", "requests", "websocket"} & set(words) == set()


def test_a_onebox_loads_no_client_that_blocks() -> None:
    command = (
        "import sys\nfrom runtime.start import BLOCKING_CLIENT, quick_imports\n"
        "with quick_imports(*BLOCKING_CLIENT): import onebox.pipeline\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.check_output([sys.executable, "-c", command], cwd=ROOT, text=True).split()
    assert {"engineio", "rich"} <= set(loaded)
    assert {"requests", "websocket"} & set(loaded) == set()
