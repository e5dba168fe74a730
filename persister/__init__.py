"""BROKER → MONGODB: consumes messages, writes their readings in batches, and acknowledges what is safely stored."""
