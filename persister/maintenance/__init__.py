"""What runs apart from the write path: erasure of deleted owners, retention, and the collections themselves."""
