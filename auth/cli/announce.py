"""`python -m auth users announce-deleted`: announce deleted owners again, so that their readings are erased again.

Needed after the readings database was restored from an older backup, which contains readings of deleted owners.
"""

import argparse
import sys
import time
from pathlib import Path

from auth.cli.common import RefusedError, audit_log, operators_database
from auth.deletion_outbox import announce_again
from auth.settings import AnnounceSettings
from broker.connect import open_broker
from broker.topology import OWNERS_EXCHANGE
from readings.reading import ReadingError, parse_time
from runtime.operators import system_user

_PROGRESS_EVERY_S = 2.0


def since_ms(text: str) -> int:
    """Parse `--since`, RFC 3339 with a time zone or milliseconds since 1970, to the latter."""
    try:
        return int(text) if text.isdecimal() else parse_time(text)
    except (ReadingError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; an example is 2026-01-31T00:00:00Z") from error


async def run_announce(settings: AnnounceSettings, args: argparse.Namespace) -> None:
    """Announce every deleted owner again, each confirmed by the broker; print how many."""
    path = settings.broker_url.removeprefix("embedded://")
    if path != settings.broker_url and not Path(path).exists():  # noqa: ASYNC240 - once, at the start
        raise RefusedError(f"There is no file {path}.")
    printed_at = time.monotonic()

    def progress(so_far: int) -> None:
        nonlocal printed_at
        if time.monotonic() - printed_at > _PROGRESS_EVERY_S:
            printed_at = time.monotonic()
            sys.stderr.write(f"{so_far:,} announced …\n")

    async with (
        operators_database(settings) as database,
        open_broker(settings.broker_url) as broker,
        broker.publisher(OWNERS_EXCHANGE) as publisher,
    ):
        announced = await announce_again(database, publisher, args.since, progress)
    audit_log.info("Deleted owners were announced again.", owners=announced, by="operator", system_user=system_user())
    sys.stdout.write(f"{announced:,} deleted owners were announced; the persisters erase their readings.\n")
