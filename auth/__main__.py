"""`python -m auth` runs the service; `python -m auth migrate` upgrades the database to the newest schema."""

import sys

from runtime.start import TRACEBACKS, quick_imports

if __name__ == "__main__":
    with quick_imports(*TRACEBACKS):
        from auth.cli.command import main

    sys.exit(main(sys.argv[1:]))
