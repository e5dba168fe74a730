"""Tests of `broker/`."""
