"""From the WebSocket frame to the Socket.IO event, and back."""
