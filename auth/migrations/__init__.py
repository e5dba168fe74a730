"""The schema's migrations. Each module in `versions/` is one step; Alembic runs those that a database lacks.

MySQL commits each table's change at once, so a step that was killed half way runs again from its start: steps must be
repeatable (`if_not_exists`). Steps are additive: replicas of the previous release keep working during a migration.
"""
