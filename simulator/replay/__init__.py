"""Replaying recorded readings from CSV and NDJSON files."""
