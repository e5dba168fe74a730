"""The whole pipeline through real sockets, as a user starts it."""
