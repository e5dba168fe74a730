"""Which operator runs a command, for the audit log."""

import getpass
import os


def system_user() -> str:
    """Return the login name of the user who runs the command, or the numeric user id if there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a passwd entry, a system without such users
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
