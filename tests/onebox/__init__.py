"""Tests of onebox."""
