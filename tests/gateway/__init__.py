"""Tests of `gateway/`."""
