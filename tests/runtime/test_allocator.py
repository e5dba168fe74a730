"""Threads of a process share one arena of glibc, whatever they allocate at the same time."""

import asyncio
import ctypes
import gc
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from weakref import finalize

import pytest

from runtime import allocator
from runtime.allocator import keep_trimmed, trim_heap, use_one_arena
from runtime.background import background

# Prints the number of arenas that 8 threads made, each of which allocates for itself while the others do.
ARENAS = """
import ctypes, os, re, sys, threading
from pathlib import Path
from runtime.allocator import use_one_arena

if sys.argv[1] == "one":
    assert use_one_arena()
all_there = threading.Barrier(8)

def allocate():
    held = [bytes(50_000) for _ in range(20)]
    all_there.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
assert libc.malloc_info(0, file) == 0
libc.fclose(file)
print(len(re.findall("<heap nr=", Path(sys.argv[2]).read_text())))
"""
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")


def arenas(what: str, file: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "GLIBC"))}
    command = [sys.executable, "-c", ARENAS, what, file]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return int(ran.stdout)


@needs_glibc
def test_threads_share_one_arena(tmp_path: Path) -> None:
    assert arenas("one", f"{tmp_path}/one") == 1
    assert arenas("many", f"{tmp_path}/many") > 1


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not use_one_arena()
    assert not trim_heap()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not use_one_arena()
    assert not trim_heap()


def test_the_heap_of_a_process_with_several_arenas_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_has_one_arena", False)
    assert not trim_heap()


async def test_the_heap_is_trimmed_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed, done = 0, asyncio.Event()

    def trim() -> bool:
        nonlocal trimmed
        trimmed += 1
        if trimmed == 3:
            done.set()
        return True

    monkeypatch.setattr(allocator, "TRIM_EVERY_S", 0.001)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # the garbage of other tests
    monkeypatch.setattr(allocator, "trim_heap", trim)
    async with background(keep_trimmed(), name="heap"):
        await done.wait()


async def test_a_trim_that_takes_long_is_made_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = list[float]()

    def trim() -> bool:
        time.sleep(0.01)
        trimmed.append(time.monotonic())
        return True

    monkeypatch.setattr(allocator, "TRIM_EVERY_S", 0.001)
    monkeypatch.setattr(allocator, "PAUSE_FACTOR", 20)
    monkeypatch.setattr(gc, "collect", lambda: 0)
    monkeypatch.setattr(allocator, "trim_heap", trim)
    async with background(keep_trimmed(), name="heap"):
        while len(trimmed) < 2:
            await asyncio.sleep(0.01)
    assert trimmed[1] - trimmed[0] >= 0.2


class Ring:
    """Refers to itself: only the garbage collector frees it."""

    def __init__(self) -> None:
        self.me = self


async def test_garbage_that_is_older_than_the_first_generation_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring()
    gc.collect()  # into the oldest generation, which is collected the most rarely
    freed = asyncio.Event()
    finalize(ring, freed.set)
    del ring
    monkeypatch.setattr(allocator, "TRIM_EVERY_S", 0.001)
    async with background(keep_trimmed(), name="heap"), asyncio.timeout(10):
        await freed.wait()


async def test_a_collection_that_takes_long_is_made_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    collected, trimmed, done = list[float](), 0, asyncio.Event()

    def collect() -> int:
        ends = time.thread_time() + 0.01
        while time.thread_time() < ends:
            pass
        collected.append(time.monotonic())
        return 0

    def trim() -> bool:
        nonlocal trimmed
        trimmed += 1
        if len(collected) == 2:
            done.set()
        return True

    monkeypatch.setattr(allocator, "TRIM_EVERY_S", 0.001)
    monkeypatch.setattr(allocator, "PAUSE_FACTOR", 0)
    monkeypatch.setattr(allocator, "COLLECT_PAUSE", 2000)
    monkeypatch.setattr(gc, "collect", collect)
    monkeypatch.setattr(allocator, "trim_heap", trim)
    async with background(keep_trimmed(), name="heap"):
        await done.wait()
    assert collected[1] - collected[0] >= 0.2
    assert trimmed > 2, "the heap is trimmed meanwhile"


# Frees all but every hundredth of 2,000 blocks of 16 KiB; prints by how many bytes the process is smaller afterwards.
GIVES_BACK = """
import ctypes
from pathlib import Path
from runtime.allocator import trim_heap, use_one_arena

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

use_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
blocks = [libc.malloc(16_384) for _ in range(2_000)]
for block in blocks:
    ctypes.memset(ctypes.c_void_p(block), 1, 16_384)
for number, block in enumerate(blocks):
    if number % 100:
        libc.free(ctypes.c_void_p(block))
before = resident()
assert trim_heap()
print(before - resident())
"""


@needs_glibc
def test_free_memory_between_used_blocks_is_given_back() -> None:
    ran = subprocess.run([sys.executable, "-c", GIVES_BACK], capture_output=True, text=True, check=True, timeout=60)
    assert int(ran.stdout) > 20_000_000
