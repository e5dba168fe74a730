"""The users' database: its tables and transactions, for the services that keep accounts, devices and alarms in it."""
