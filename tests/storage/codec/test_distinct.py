"""The distinct values of an array, without what numpy would load for them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from storage.codec.distinct import distinct

ROOT = Path(__file__).parents[3]
LOADS_NOTHING = """
import sys
import numpy as np
from storage.codec.distinct import distinct
distinct(np.array([2, 1, 2]))
sys.exit("numpy.ma" in sys.modules)
"""


def test_each_value_comes_once_in_order() -> None:
    assert distinct(np.array([3, 1, 3, 2, 1], np.int64)).tolist() == [1, 2, 3]
    assert distinct(np.array([], np.uint8)).tolist() == []


def test_nothing_more_of_numpy_is_loaded() -> None:
    subprocess.run([sys.executable, "-c", LOADS_NOTHING], check=True, cwd=ROOT, timeout=60)


def test_nobody_else_asks_numpy_for_them() -> None:
    files = [file for package in ("storage", "reader", "persister") for file in (ROOT / package).rglob("*.py")]
    assert len(files) > 100
    alone = re.compile(r"np\.unique\((?!.*return_)")
    assert [file for file in files if alone.search(file.read_text()) and file.name != "distinct.py"] == []
