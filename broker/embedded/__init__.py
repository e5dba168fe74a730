"""The broker without a server: a durable queue in SQLite."""
