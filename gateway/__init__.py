"""DEVICE → BROKER: the Socket.IO edge. A reading is acknowledged once the broker has confirmed it, never before."""
