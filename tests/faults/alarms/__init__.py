"""Alarms under faults: watched devices, a receiver that misbehaves, and what there must be in the end."""
