"""The whole pipeline in one process on one machine: the services, unchanged, on storage that needs no installation.

For evaluation and small installations. Users are in SQLite, readings in a private mongod, the queue is one file. Every
guarantee survives `kill -9`, but one machine neither scales out nor fails over.
"""
