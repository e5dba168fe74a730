"""How readings are stored; reader and persister both import it.

`codec` packs many readings of one series as a block. `places` knows the collections in which readings are at a moment,
and reads over all of them.
"""
