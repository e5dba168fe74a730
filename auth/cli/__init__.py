"""`python -m auth`: the operator's commands."""
