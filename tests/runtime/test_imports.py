"""What a start does not load: imports are most of the time that a process takes to be ready."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "loaded", "left_out"),
    [
        ("auth.cli.command", "sqlalchemy", {"alembic", "aio_pika"}),
        ("gateway.app", "socketio", {"sqlite3", "numpy"}),
        ("onebox.command", "onebox.mongod", {"onebox.pipeline", "gateway.app", "numpy"}),
        ("persister.command", "motor", {"numpy", "pcodec", "aio_pika"}),
    ],
)
def test_a_process_loads_what_it_uses(module: str, loaded: str, left_out: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    found = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert loaded in found
    assert left_out & found == set()
