"""A reading too large for a block, as only a document written by hand can be, is an error and not tried for ever."""

from collections.abc import Callable

import pytest
from bson import ObjectId

from persister.compaction.blocks import appended, begun
from persister.compaction.heads import HeadInfo
from persister.compaction.pieces import new_run
from readings.keys import series_key
from storage.codec.columns import Columns
from storage.codec.packed import BlockTooLarge
from storage.places.names import BEGINNING, END
from tests.storage.codec.cases import DEVICE, OWNER, SENSOR_TYPE, START_MS, columns, document

SERIES = series_key(OWNER, DEVICE, SENSOR_TYPE)
LEFT = HeadInfo(dict(SERIES), BEGINNING, END, ObjectId(), ObjectId(), 1, (START_MS - 1, 0), pending=False)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "write",
    [
        lambda made: list(new_run(SERIES, 0, [made])),
        lambda made: begun(SERIES, made),
        lambda made: appended(SERIES, LEFT, made),
    ],
)
def test_it_is_an_error(write: Callable[[Columns], object]) -> None:
    made = columns([document("x" * (9 << 20), START_MS), document(1, START_MS + 1)])
    with pytest.raises(BlockTooLarge):
        write(made)
