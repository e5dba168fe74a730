"""`python -m persister`: store readings until a signal ends the process. Any number may share one queue.

`python -m persister erase OWNER --yes` is for operators.
"""

import sys

from persister.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
