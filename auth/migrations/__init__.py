"""The history of the schema. Each module in `versions/` is one step; Alembic runs those that a database lacks.

MySQL commits each table's change at once, so a step that was killed half way runs again from its start: write steps
that can (`if_not_exists`). Steps are additive: the replicas of the release before go on while a database is migrated.
"""
