"""Runs a process as its previous version was, without the newest attribute of a reading.

`python -m tests.integration.previous_version NAME [ARGS]`
"""

import runpy
import sys

from readings import reading

reading.ATTRIBUTES = reading.ATTRIBUTES[:-1]
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
