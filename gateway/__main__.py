"""`python -m gateway`: serve devices until a signal stops it."""

import sys

from runtime.compiled import use_compiled
from runtime.start import BLOCKING_CLIENT, TRACEBACKS, quick_imports

if __name__ == "__main__":
    use_compiled()
    with quick_imports(*TRACEBACKS, *BLOCKING_CLIENT):
        from gateway.command import main

    sys.exit(main(sys.argv[1:]))
