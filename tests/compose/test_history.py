"""The count of stored readings that the compose test relies on: it finds what is missing and what is there twice."""

from pathlib import Path

import pytest

from tests.compose.history import access_token, count_readings, count_rows
from tests.compose.stack import StackError
from tests.e2e.onebox_process import demo_credentials, running_onebox, summary

HEAD = "device,sensorType,ts,seq,value,receivedAt\n"
ROWS = [f"d,t,2026-01-31T12:00:00.00{n}Z,0,{n},2026-01-31T12:00:01.000Z\n" for n in range(3)]


def test_the_rows_of_a_whole_export_are_counted() -> None:
    assert count_rows(HEAD + "".join(ROWS) + "# end 3\n") == 3
    assert count_rows(HEAD + "# end 0\n") == 0


def test_a_reading_that_is_there_twice_is_an_error_also_with_another_value() -> None:
    again = ROWS[1].replace(",1,", ",7,")
    with pytest.raises(StackError, match="more than once"):
        count_rows(HEAD + "".join(ROWS) + again + "# end 4\n")


@pytest.mark.parametrize("end", ["", "# end 4\n"])
def test_an_export_that_is_cut_off_or_counts_otherwise_is_an_error(end: str) -> None:
    with pytest.raises(StackError):
        count_rows(HEAD + "".join(ROWS) + end)


async def test_readings_are_counted_over_http_while_they_are_sealed_and_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SEAL_READINGS": "200", "SEAL_SECONDS": "1"}.items():
        monkeypatch.setenv(name, value)
    sent = ("--devices", "4", "--rate", "100", "--seconds", "6")
    stored = (await summary(*sent, "--port", "0", data=tmp_path))["stored"]
    assert stored > 1000
    async with running_onebox("--devices", "0", data=tmp_path) as (_, url):
        token = await access_token(url, **demo_credentials(tmp_path))
        assert await count_readings(url, token) == stored
