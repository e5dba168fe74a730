"""The commands of `python -m auth` for operators."""
