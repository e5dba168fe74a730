"""`python -m gateway`: serve devices until a signal stops it."""

import sys

from runtime.compiled import use_compiled

if __name__ == "__main__":
    use_compiled()
    from gateway.command import main

    sys.exit(main(sys.argv[1:]))
