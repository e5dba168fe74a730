"""The dashboard, as the browser gets it."""
