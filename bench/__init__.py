"""Side-by-side measurements: all peers in one run, on one machine, in turns. Ratios hold elsewhere."""
