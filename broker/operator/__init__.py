"""The command line `python -m broker`: declare the topology; list, show, replay and discard dead letters."""
