"""Sealing: when `readings` is large or old enough, it is renamed, and the next readings go to a new one."""
