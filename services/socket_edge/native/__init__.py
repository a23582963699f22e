"""The native WebSocket, `notify.v1`: its requests, topics, channels and publishes."""
