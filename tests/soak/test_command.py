"""The command line of `make soak`: what cannot be meant is refused before a folder is made."""

from pathlib import Path

import pytest

from tests.soak.__main__ import parsed, plan_of


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--hours 0", "must be a number above 0"),
        ("--minutes -1", "must be a number above 0"),
        ("--hours 1 --minutes 1", "not allowed with"),
        ("--devices 0", "must be a whole number from 1 to 100000"),
        ("--settle -1", "must be a number from 0 to 10000"),
        ("--dir {folder}", "exists already; --resume goes on with it"),
        ("--resume {folder}", "has no data of an earlier run"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(arguments.format(folder=tmp_path).split())
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_slopes_leave_out_half_an_hour_and_at_most_half(tmp_path: Path) -> None:
    plans = [plan_of(parsed([*text.split(), "--dir", str(tmp_path / text)])) for text in ("--hours 2", "--minutes 10")]
    assert [(plan.seconds, plan.settle_s, plan.devices) for plan in plans] == [(7200, 1800, 1000), (600, 300, 1000)]
