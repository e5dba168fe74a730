"""Real clients: the official JavaScript client and the Python client, against a gateway on a real port."""
