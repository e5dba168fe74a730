"""Clients that third-party generators create from docs/protocol/openapi.json."""
