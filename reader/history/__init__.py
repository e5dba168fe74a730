"""Stored readings: queries, aggregates, exports, the catalogue of series."""
