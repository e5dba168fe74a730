"""The HTTP API: accounts, sessions, devices and tokens."""
