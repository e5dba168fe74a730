"""Why mongod did not start, in one line: an exit status and a log go in, a cause and a way out come out."""

import re
import signal
from pathlib import Path

# What mongod, or the loader before it, writes when it cannot start, and what that means to the person who reads it.
CAUSES = (
    (r"cannot execute [^\n]*", r"\g<0>"),
    (r"shared libraries: (libcurl\S*?):", r"it needs \1 (Debian, Ubuntu: apt-get install libcurl4)"),
    (
        r"shared libraries: (lib(ssl|crypto)\.so\.3):",
        r"it needs OpenSSL 3's \1 (Debian, Ubuntu: apt-get install libssl3)",
    ),
    (r"shared libraries: (\S+?):", r"it needs the shared library \1"),
    (r"version `(GLIBC\S*)' not found", r"it needs a newer system, with \1"),
    (r"Illegal instruction", "it needs a processor with AVX (mongod 5.0 and newer)"),
    (r'No space left on device|"error":28\b', "the disk is full"),
    (r"DBPathInUse|Unable to lock the lock file", "another mongod uses its folder"),
    (
        r"UPGRADE PROBLEM|featureCompatibilityVersion|unsupported WiredTiger",
        "its data are of another version of mongod",
    ),
    (r"WT_TRY_SALVAGE|WT_PANIC", "its data are damaged"),
    (r"Permission denied", "it may not write in its folder"),
)
SAID_BY_STATUS = {-signal.SIGILL: "Illegal instruction", 62: "UPGRADE PROBLEM"}  # 62: MongoDB's EXIT_NEED_DOWNGRADE


class MongodError(Exception):
    """mongod is missing, cannot start, or uses a folder that is in use; the message is one line and names a way out."""


def cause(status: int, log: Path) -> str:
    """Return the cause that a mongod which ended with this status has left in its log."""
    lines = log.read_bytes()[-65536:].decode(errors="replace").splitlines()
    # mongod's own lines are JSON with a severity; of those only errors tell why, the loader's are plain text.
    said = [line for line in lines if not re.search(r'"s":"[IWD]', line)]
    text = "\n".join([SAID_BY_STATUS.get(status, ""), *said])
    for pattern, meaning in CAUSES:
        if match := re.search(pattern, text):
            return match.expand(meaning)
    return f"signal {-status} ended it" if status < 0 else f"it ended with status {status}"
