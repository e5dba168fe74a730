"""Issuing and revoking tokens: signing keys, their storage and rotation, revocations."""
