"""Everything in one process on one machine: the services as they are, on storage that needs no installation.

For evaluation and small installations. Users live in SQLite, readings in a private mongod, the queue in one file; it
keeps every promise through `kill -9`, but it is one machine: it does not scale out and does not fail over.
"""
