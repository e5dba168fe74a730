"""What every HTTP service shares: bodies, problems, OpenAPI, the operators' endpoints."""
