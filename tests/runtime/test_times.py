"""Times in responses."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.times import rfc3339

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR_1, YEAR_9999 = -62_135_596_800_000, 253_402_300_799_999


@given(st.integers(YEAR_1, YEAR_9999))
def test_every_time_of_the_calendar_is_written_as_the_standard_library_does(milliseconds: int) -> None:
    expected = (EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds")
    assert rfc3339(milliseconds) == expected.replace("+00:00", "Z")


@pytest.mark.parametrize(("milliseconds", "date"), [(-(2**63), "0001-01-01"), (2**63 - 1, "9999-12-31")])
def test_what_lies_beyond_the_calendar_is_shown_at_its_end(milliseconds: int, date: str) -> None:
    assert rfc3339(milliseconds).startswith(date)
