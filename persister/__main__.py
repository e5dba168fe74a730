"""`python -m persister`: store readings until a signal ends the process; `erase`, `compact` and more for operators."""

import sys

from runtime.compiled import use_compiled
from runtime.start import TRACEBACKS, quick_imports

if __name__ == "__main__":
    use_compiled()
    with quick_imports(*TRACEBACKS):
        from persister.command import main

    sys.exit(main(sys.argv[1:]))
