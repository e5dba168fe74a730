"""How many connections, and how many readings a second."""
