"""Settings of glibc's allocator for processes that need much memory for a moment, in several threads."""

import ctypes
import sys

# malloc.h: the most arenas, from which threads take their memory.
_M_ARENA_MAX = -8


def use_one_arena() -> bool:
    """Let all threads of this process take memory from one arena; return False where there is no glibc.

    Call once, before threads are started. By default a thread gets an arena of its own, and what is free at the end of
    each stays with it: as much as twice the largest block that was freed so far, which `malloc_trim` does not give back
    either (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD; malloc_trim(3)). So each thread that once held a large
    answer keeps room for the next one. One arena has one such rest, and threads that hold Python's lock do not wait
    for each other in it.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return bool(mallopt(_M_ARENA_MAX, 1))
