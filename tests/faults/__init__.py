"""The proof under faults: a fleet, the real stack, one fault at a time, and an account of every reading."""
