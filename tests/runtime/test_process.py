"""The life cycle of a process, tested in processes: signals, drains, deadlines and exit codes."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HEAD = """
import asyncio, sys
from runtime.logs import configure_logs
from runtime.process import Shutdown, run_until_stopped

configure_logs("info", "console")

def say(word):
    print(word, flush=True)

"""

DRAINS = """
async def serve(shutdown):
    say("ready")
    await shutdown.wait()
    say("draining " + shutdown.reason)
    await asyncio.sleep(0.05)
    say("drained")

sys.exit(run_until_stopped(serve, 5))
"""

COUNTS_FILES = """
import resource

async def serve(shutdown):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    say(f"{soft} of {hard}")

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))

sys.exit(run_until_stopped(serve, 5))
"""

HANGS = """
async def serve(shutdown):
    say("ready")
    await shutdown.wait()
    say("draining")
    try:
        await asyncio.sleep(60)
    finally:
        say("closed")

sys.exit(run_until_stopped(serve, {seconds}))
"""

HANGS_UNCANCELLED = """
async def serve(shutdown):
    say("ready")
    await shutdown.wait()
    say("draining")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            say("deaf")

sys.exit(run_until_stopped(serve, 0.1))
"""

FAILS = """
async def serve(shutdown):
    if {after_signal}:
        say("ready")
        await shutdown.wait()
    raise RuntimeError("the disk is gone")

sys.exit(run_until_stopped(serve, 5))
"""

SERVICE = """
from dataclasses import dataclass
from runtime.process import run_service
from runtime.settings import ProcessSettings, Positive, setting

@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(ProcessSettings):
    secret_key: str = setting(about="a secret", secret=True)
    max_batch: Positive = setting(1, about="a size")

async def serve(settings, shutdown):
    say("serving " + str(settings.max_batch))

sys.exit(run_service(Settings, serve))
"""

TRIMMED = """
from runtime import allocator
from runtime.process import run_service
from runtime.settings import ProcessSettings

allocator.TRIM_EVERY_S = 0.01

def trim_heap():
    if not trims.is_set():
        say("trimmed")
    trims.set()

async def serve(settings, shutdown):
    global trims
    trims = asyncio.Event()
    say("one arena: " + str(allocator._has_one_arena))
    allocator.trim_heap = trim_heap
    await trims.wait()

sys.exit(run_service(ProcessSettings, serve))
"""


@contextmanager
def running(code: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HEAD + code],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name != "MAX_BATCH"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def expect(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == words


def ends(process: subprocess.Popen[str], code: int, *, within_s: float = 10) -> tuple[list[str], str]:
    """Return the remaining lines of output, and standard error."""
    out, err = process.communicate(timeout=within_s)
    assert process.returncode == code, err
    return out.splitlines(), err


def test_a_variable_that_looks_like_ours_is_warned_of_once_and_without_its_value() -> None:
    wrong = {"MAX_BATCHS": "hunter2", "GATEWAY_MODE": "hunter2", "GATEWAY_PORT": "tcp://10.0.0.1:8002"}
    with running(SERVICE, SECRET_KEY="hunter2", LOG_FORMAT="json", **wrong) as process:
        _, err = ends(process, 0)
    told = [json.loads(line) for line in err.splitlines() if "no process reads" in line]
    assert [(line["level"], line["variable"], line.get("meant")) for line in told] == [
        ("warning", "GATEWAY_MODE", None),
        ("warning", "MAX_BATCHS", "MAX_BATCH"),
    ]
    assert "hunter2" not in err
    assert "GATEWAY_PORT" not in err


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_a_service_has_one_arena_which_is_trimmed() -> None:
    with running(TRIMMED) as process:
        expect(process, "one arena: True")
        expect(process, "trimmed")


def test_sigterm_and_sigint_drain_and_exit_with_0() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(DRAINS) as process:
            expect(process, "ready")
            process.send_signal(number)
            said, _ = ends(process, 0)
            assert said == [f"draining {number.name}", "drained"]


def test_a_drain_that_hangs_is_cancelled_at_its_deadline_and_exits_with_1() -> None:
    with running(HANGS.format(seconds=0.3)) as process:
        expect(process, "ready")
        process.send_signal(signal.SIGTERM)
        expect(process, "draining")
        started = time.monotonic()
        said, err = ends(process, 1)
        assert said == ["closed"], "cancelled work still closes what it has open"
        assert 0.2 < time.monotonic() - started < 5
        assert "0.3 s have passed" in err


def test_a_second_signal_cuts_the_drain_short() -> None:
    with running(HANGS.format(seconds=30)) as process:
        expect(process, "ready")
        process.send_signal(signal.SIGTERM)
        expect(process, "draining")
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        said, err = ends(process, 1)
        assert said == ["closed"]
        assert time.monotonic() - started < 5
        assert "a second signal" in err


def test_a_drain_that_cannot_even_be_cancelled_does_not_keep_the_process() -> None:
    with running(HANGS_UNCANCELLED) as process:
        expect(process, "ready")
        process.send_signal(signal.SIGTERM)
        expect(process, "draining")
        ends(process, 1, within_s=8)


def test_as_many_files_may_be_open_as_the_administrator_allows() -> None:
    with running(COUNTS_FILES) as process:
        said, _ = ends(process, 0)
        assert said == ["1024 of 1024"]


def test_an_exception_ends_the_process_with_1_and_is_told() -> None:
    with running(FAILS.format(after_signal=False)) as process:
        _, err = ends(process, 1)
        assert "the disk is gone" in err


def test_an_exception_during_the_drain_ends_the_process_with_1() -> None:
    with running(FAILS.format(after_signal=True)) as process:
        expect(process, "ready")
        process.send_signal(signal.SIGTERM)
        _, err = ends(process, 1)
        assert "the disk is gone" in err


def test_bad_settings_exit_with_2_and_name_the_variable_without_its_secret() -> None:
    with running(SERVICE, SECRET_KEY="hunter2", MAX_BATCH="none") as process:
        said, err = ends(process, 2)
        assert said == []
        assert "MAX_BATCH='none'" in err
        assert "hunter2" not in err
        assert "Traceback" not in err


def test_a_missing_setting_exits_with_2_and_a_good_one_serves() -> None:
    with running(SERVICE) as process:
        _, err = ends(process, 2)
        assert "SECRET_KEY is not set: a secret" in err
    with running(SERVICE, SECRET_KEY="hunter2", MAX_BATCH="3") as process:
        said, _ = ends(process, 0)
        assert said == ["serving 3"]
