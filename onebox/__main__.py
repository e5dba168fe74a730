"""`python -m onebox`: the whole pipeline on this machine."""

import sys

from onebox.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
