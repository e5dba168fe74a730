"""The HTTP calls of the reader."""
