"""A program that is ended by a signal cleans up, says nothing, and has the signal's exit code."""

import signal
import subprocess
import sys

import pytest

WITH_EXIT = """
import time
from testing.signals import exit_on_signals
exit_on_signals()
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    print("cleaning", flush=True)
    time.sleep(0.3)
    print("clean", flush=True)
"""
WITH_TASK = """
import asyncio, sys
from testing.signals import until_signal
async def work():
    try:
        print("ready", flush=True)
        await asyncio.sleep(60)
    finally:
        print("cleaning", flush=True)
        await asyncio.sleep(0.3)
        print("clean", flush=True)
sys.exit(asyncio.run(until_signal(work())))
"""


@pytest.mark.parametrize("program", [WITH_EXIT, WITH_TASK], ids=["exit", "task"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_it_and_the_next_ones_do_not_disturb_its_cleanup(
    program: str, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in ("ready", "cleaning"):
            assert process.stdout.readline() == f"{line}\n"
            process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (128 + number, "clean\n", "")
