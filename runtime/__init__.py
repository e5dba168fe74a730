"""What every process needs and no more: settings, logs, metrics, health, signals, HTTP errors, token verification.

Nothing here knows of telemetry.
"""
