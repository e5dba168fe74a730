"""The broker on RabbitMQ, through aio-pika and aiormq."""
