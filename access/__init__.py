"""Access tokens: verification, the bearer header and revocations."""
