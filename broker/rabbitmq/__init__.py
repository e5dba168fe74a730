"""The broker on RabbitMQ, through aio-pika."""
