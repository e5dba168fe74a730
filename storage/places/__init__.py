"""Where the readings of a database are, and how they are read over all of these places.

A reading moves in one direction: from `readings` into a sealed collection, which is that collection renamed; from there
into a small piece; from pieces into a block. At each step it is in the next place before it leaves the one before, so a
reader that goes through the places in this order misses nothing, and drops what it meets twice (docs/decisions/0024).
"""
