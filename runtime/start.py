"""The first moments of a process: imports are most of the time until it is ready.

This module imports next to nothing itself, so that `__main__` can begin with it.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

# Optional packages that libraries load where they are installed, though no service uses what they are for: structlog
# draws tracebacks with the first; Engine.IO's client, which is not asynchronous, talks over the others.
TRACEBACKS = ("rich",)
BLOCKING_CLIENT = ("requests", "websocket")


@contextmanager
def quick_imports(*without: str) -> Iterator[None]:
    """Import modules that stay: nothing is collected meanwhile, nor scanned by the garbage collector afterwards.

    Until the context ends, the packages `without` cannot be imported, as if they were not installed; one that is loaded
    already stays.
    """
    absent = [name for name in without if name not in sys.modules]
    collecting = gc.isenabled()
    gc.disable()
    sys.modules.update(dict.fromkeys(absent, cast("ModuleType", None)))  # what `import` takes for "not there"
    try:
        yield
    finally:
        for name in absent:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
        gc.freeze()
        if collecting:
            gc.enable()
