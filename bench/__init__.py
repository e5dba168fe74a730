"""Side-by-side measurements. Each prints a table, and with --json one object; docs/decisions/ has the figures."""
