"""Who may do what: tokens and their verification, the bearer header, revocations."""
