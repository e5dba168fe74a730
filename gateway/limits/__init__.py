"""Limits on connections, on the rate of readings and bytes, and on the names that an owner uses."""
