"""How readings are stored, wherever they are at the moment; reader and persister both import it.

`codec` packs many readings of one series as a block.
"""
