"""The native WebSocket: frames of the subprotocol `notify.v1` (docs/protocols/native.md)."""
