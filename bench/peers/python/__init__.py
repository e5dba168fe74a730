"""The path of tutorials in Python: python-socketio, aio-pika, Motor."""
