"""What every process needs, whatever it does: settings, logs, metrics, health checks, signals, HTTP.

Nothing here knows about telemetry.
"""
