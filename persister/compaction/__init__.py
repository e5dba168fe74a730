"""Moves the readings of sealed collections into pieces and blocks, and those of pieces into blocks."""
