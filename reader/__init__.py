"""MONGODB → CLIENTS: history, exports, the live feed and the dashboard, each limited to one owner. Read-only."""
