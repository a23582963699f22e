"""WebSocket serving: the upgrade and the protocol."""
