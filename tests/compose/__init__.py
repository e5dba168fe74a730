"""The shipped compose stack on a real Docker Engine: up, scaled, killed, down, with every reading accounted for."""
