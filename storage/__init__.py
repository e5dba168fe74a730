"""How readings are kept once nothing is added to them: many readings of one series as one block.

Knows the documents of `readings` and no database driver; reader and persister both import it.
"""
