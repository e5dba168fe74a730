"""The calls under `/alarms`."""
