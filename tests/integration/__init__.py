"""Services on real servers."""
