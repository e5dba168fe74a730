"""`make simulate`: the way of a reading in one process and virtual time, with faults that a seed draws.

    device.py → gateway.py → broker.py → persister.py → mongodb.py → compaction.py

Each is the real program with its clock, its network and its threads replaced; MongoDB is a model. `world.py` runs one
seed, `faults.py` disturbs it, `verdict.py` judges what is stored. docs/decisions/0028 says what is real.
"""
