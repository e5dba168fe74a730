"""The usual Python stack of tutorials: python-socketio, aio-pika, Motor."""
