"""`python -m simulator`: run a fleet against a running system; `python -m simulator serve`: serve devices over HTTP."""

import sys

from simulator.command import main

if __name__ == "__main__":
    sys.exit(main())
