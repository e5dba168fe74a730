"""Many readings of one series as columns, and packed as a block: columns, encoding, head, sums.

Knows the documents of `readings` and no database driver.
"""
