"""From WebSocket frames to Socket.IO events, and back."""
