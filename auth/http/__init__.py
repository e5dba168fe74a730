"""The HTTP calls of accounts, sessions, devices and tokens."""
