"""The contract that both sides speak: the reading, the message, the topology, publisher and consumer.

`interface.py` says what a broker does; `rabbitmq.py` does it with RabbitMQ, `embedded.py` with SQLite on one machine.
"""
