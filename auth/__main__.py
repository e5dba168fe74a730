"""`python -m auth` runs the service; `python -m auth migrate` upgrades the database to the newest schema."""

import sys

from auth.cli.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
