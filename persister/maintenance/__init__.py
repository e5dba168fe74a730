"""What happens beside the write path: deleted owners, retention, the collection itself."""
