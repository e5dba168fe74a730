"""Alternatives to Tidegate for the benches: complete systems, written as their libraries' documentation suggests."""
