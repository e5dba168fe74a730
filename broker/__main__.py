"""`python -m broker declare` and `python -m broker dead-letters …`: the operator's commands for queues."""

import sys

from broker.operator.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
