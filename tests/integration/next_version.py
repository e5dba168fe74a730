"""Runs a process as its next version would be, with one more message schema.

`python -m tests.integration.next_version NAME [ARGS]`
"""

import runpy
import sys

from broker import message

message.SCHEMA += 1
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
