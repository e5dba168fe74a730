"""Issuing tokens: signing keys, their storage and rotation, revocations."""
