"""PERSISTER → MONGODB, in the background: the index of `series` by which readers find the devices of a sensorType.

Readers do without it, more slowly, so nothing waits for it: not the first reading, nor a stop. A database that was
restored or replaced under a running worker gets it again.
"""

import asyncio

from persister.maintenance.store import Upkeep
from persister.to_mongodb import WriteFailed
from runtime.logs import logger

log = logger("persister.maintenance.series_index")

LOOK_EVERY_S = 600.0
RETRY_AFTER_S = 10.0


async def keep_series_index(upkeep: Upkeep) -> None:
    """Have the index made, and look every ten minutes whether it is there, for ever. Where it is, a look is 0.3 ms."""
    while True:
        try:
            await upkeep.index_series()
        except WriteFailed as error:
            log.warning("The index of the series could not be made; trying again.", error=str(error))
            await asyncio.sleep(RETRY_AFTER_S)
        else:
            await asyncio.sleep(LOOK_EVERY_S)
