"""The command line of `make chaos`: what cannot be meant is refused before anything starts."""

import sys

import pytest

from tests.faults import __main__ as command


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--minutes 0", "must be a number above 0"),
        ("--minutes nan", "must be a number above 0"),
        ("--devices 0", "must be a whole number from 1 to 1000"),
        ("--backup-age -1", "must be a number above 0"),
        # Without a crash, nothing would be proven.
        ("--onebox 0", "must be a whole number of at least 1"),
        ("--onebox -1", "must be a whole number of at least 1"),
        ("--onebox 1 --cluster", "not allowed with"),
        ("--onebox 1 --only sigterm_of_each", "leave out --only"),
        ("--short", "--short is for --cluster"),
        ("--cluster --only sigterm_of_each", "with --cluster there is no sigterm_of_each"),
        ("--only nothing", "invalid choice: 'nothing'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", *arguments.split()])
    monkeypatch.setattr(command, "run", None)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert why in capsys.readouterr().err
