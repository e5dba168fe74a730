"""`python -m onebox`: the whole pipeline on this machine."""

import sys

from runtime.compiled import use_compiled

if __name__ == "__main__":
    use_compiled()
    from onebox.command import main

    sys.exit(main(sys.argv[1:]))
