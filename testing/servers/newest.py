"""The newest RabbitMQ in addition to this machine's, for tests that run on both; see `install-newest-rabbitmq`."""

import subprocess
from pathlib import Path


class NotAvailableError(Exception):
    """It is not available on this machine; the message is the reason, in one line."""


def newest_rabbitmq_root() -> Path:
    """Return the root folder of a Debian that has it; cached, about a minute the first time on a machine."""
    done = subprocess.run(
        [str(Path(__file__).with_name("install-newest-rabbitmq"))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        raise NotAvailableError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return Path(done.stdout.strip())


def versions_line(versions: list[str], why_not_newest: str) -> str:
    """Return a line with the versions that ran and, if the newest was required but not available, the reason."""
    line = f"RabbitMQ {' and '.join(sorted(set(versions))) or '(none)'} ran in these tests"
    return f"{line}; NOT TESTED with the newest: {why_not_newest}" if why_not_newest else line
