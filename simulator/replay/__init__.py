"""Replaying recorded readings from CSV files."""
