"""Clients as users have them: the official JavaScript one and the Python one, against a gateway on a real port."""
