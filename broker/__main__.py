"""`python -m broker declare` and `python -m broker dead-letters …`: what an operator does with the queues."""

import sys

from broker.operator.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
