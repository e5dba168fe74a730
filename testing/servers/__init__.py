"""Real servers for the tests: RabbitMQ, MariaDB and mongod, each private to the process that starts it.

A server keeps its data in a folder of the test's choosing, listens on free ports of 127.0.0.1 only, and is gone when it
is stopped, or when the process that started it is gone, however that ended. Linux only, as /proc is read.
"""
