"""Deliveries: each notification is a row of the ledger until it is delivered or given up."""
