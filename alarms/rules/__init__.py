"""Rules: what they watch, when they hold, and what they make of a series of readings."""
