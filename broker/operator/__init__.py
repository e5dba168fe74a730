"""`python -m broker`: declare the topology, list and replay dead letters."""
