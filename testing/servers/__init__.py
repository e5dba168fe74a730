"""Real servers for the tests: RabbitMQ, MariaDB and mongod, each private to the process that starts it.

A server keeps its data in a folder that the test chooses and listens on free ports of 127.0.0.1 only. It ends when it
is stopped or when the process that started it ends, however that happens. Linux only, because it reads /proc.
"""
