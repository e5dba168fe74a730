"""The device libraries, as processes of their own, against real services under faults."""
