"""RabbitMQ's newest version beside this machine's, for what must hold on both; see `install-newest-rabbitmq`."""

import subprocess
from pathlib import Path


class NotToBeHadError(Exception):
    """It cannot be had on this machine; the message says why, in one line."""


def newest_rabbitmq_root() -> Path:
    """Return the folder of a Debian that has it; about a minute the first time, nothing after that."""
    done = subprocess.run(
        [str(Path(__file__).with_name("install-newest-rabbitmq"))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        raise NotToBeHadError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return Path(done.stdout.strip())


def versions_line(versions: list[str], why_not_newest: str) -> str:
    """Say which versions were run and, where the newest was asked for and could not be had, that too."""
    line = f"RabbitMQ {' and '.join(sorted(set(versions))) or '(none)'} ran in these tests"
    return f"{line}; NOT TESTED with the newest: {why_not_newest}" if why_not_newest else line
