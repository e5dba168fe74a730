"""`make chaos ARGS="--cluster"`: three RabbitMQ nodes and three mongods on hosts of their own, which fail and part."""
