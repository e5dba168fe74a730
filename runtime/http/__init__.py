"""What every HTTP service shares: bodies, problems, OpenAPI, health checks and metrics."""
