"""STORED READINGS → OWNERS: rules, the alarms that they raise, and notifications of which each is accounted for."""
