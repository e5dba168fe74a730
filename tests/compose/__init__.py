"""The compose stack as it ships, on a real Docker Engine: up, scaled, killed, down, and an account of every reading."""
