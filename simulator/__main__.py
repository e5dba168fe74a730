"""`python -m simulator`: a fleet against a running system; `python -m simulator serve`: the same as a service."""

import sys

from simulator.command import main

if __name__ == "__main__":
    sys.exit(main())
