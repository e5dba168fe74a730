"""Side-by-side measurements: all peers in one run, in turns; ratios hold elsewhere. docs/decisions/ has figures."""
