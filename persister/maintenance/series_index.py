"""PERSISTER → MONGODB, in the background: the index of `series` by which readers find the devices of a sensorType.

Without it readers are slower, so nothing waits for it: neither the first reading nor a stop. A database that is
restored or replaced under a running worker gets it again.
"""

import asyncio

from persister.maintenance.store import MaintenanceStore
from persister.mongodb_errors import WriteFailed
from runtime.logs import logger

log = logger("persister.maintenance.series_index")

CHECK_EVERY_S = 600.0
RETRY_AFTER_S = 10.0


async def maintain_series_index(maintenance: MaintenanceStore) -> None:
    """Create the index, and check for it every ten minutes until cancelled. A check takes 0.3 ms if it exists."""
    while True:
        try:
            await maintenance.index_series()
        except WriteFailed as error:
            log.warning("The index of the series could not be created; trying again.", error=str(error))
            await asyncio.sleep(RETRY_AFTER_S)
        else:
            await asyncio.sleep(CHECK_EVERY_S)
