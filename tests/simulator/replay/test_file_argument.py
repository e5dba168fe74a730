"""What an argument that should be a file is, where it is none."""

import argparse
from pathlib import Path

import pytest

from simulator.replay.options import file_argument


def test_a_folder_is_told_from_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a regular file"):
        file_argument(str(tmp_path))
    with pytest.raises(argparse.ArgumentTypeError, match="does not exist"):
        file_argument(str(tmp_path / "none.csv"))
