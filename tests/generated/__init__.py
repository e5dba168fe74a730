"""Clients that other people's tools generate from docs/protocol/openapi.json, at work."""
