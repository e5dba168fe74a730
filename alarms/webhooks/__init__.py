"""Webhooks: signatures as Standard Webhooks has them, the addresses that may be called, and when to try again."""
