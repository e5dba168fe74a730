"""Who runs an operator's command, for the audit log."""

import getpass
import os


def system_user() -> str:
    """Return the name of the user of this machine who runs the command, or the number where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without an entry, a system without such users
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
