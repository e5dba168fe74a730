"""Why mongod did not start: takes its exit status and log, returns the cause in one line, with a remedy."""

import re
import signal
from pathlib import Path

# Messages of mongod, or of the dynamic loader before it, and what they mean to the user.
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
        "its data was written by another version of mongod",
    ),
    (r"WT_TRY_SALVAGE|WT_PANIC", "its data is damaged"),
    (r"Permission denied", "it may not write in its folder"),
)
MESSAGE_OF_STATUS = {-signal.SIGILL: "Illegal instruction", 62: "UPGRADE PROBLEM"}  # 62: MongoDB's EXIT_NEED_DOWNGRADE


class MongodError(Exception):
    """mongod is missing, cannot start, or its folder is in use; the message is one line with a remedy."""


def cause(status: int, log: Path) -> str:
    """Return why mongod ended with this status, according to its log."""
    lines = log.read_bytes()[-65536:].decode(errors="replace").splitlines()
    # mongod's lines are JSON with a severity, of which only errors matter; the loader's lines are plain text.
    errors = [line for line in lines if not re.search(r'"s":"[IWD]', line)]
    text = "\n".join([MESSAGE_OF_STATUS.get(status, ""), *errors])
    for pattern, meaning in CAUSES:
        if match := re.search(pattern, text):
            return match.expand(meaning)
    return f"signal {-status} ended it" if status < 0 else f"it ended with status {status}"
