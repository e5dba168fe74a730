"""The contract between publishers and consumers: messages, their headers, the topology, and the broker's interface.

`interface.py` defines what a broker does; `rabbitmq/` implements it with RabbitMQ, `embedded/` with SQLite on one
machine, `operator/` is the command line for queues and dead letters.
"""
