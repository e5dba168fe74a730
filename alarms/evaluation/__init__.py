"""Evaluation: from announced readings to transitions of alarms, each stored once, by one process at a time."""
