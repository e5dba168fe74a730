"""Encodings in which other devices send readings, decoded to the readings of this system: SenML and line protocol.

Written here because no package seen does either right, and because all of it handles input from outside: each decoder
is bounded in time and memory by the size of a body, and names what it does not take.
"""
