"""Live feeds: from the broker's fan-out to server-sent events."""
