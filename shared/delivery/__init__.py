"""The delivery loop: read from a queue, send, acknowledge."""
