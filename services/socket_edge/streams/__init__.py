"""Readers of streams: the hub, its feeds, and the responses of `GET /v1/stream`."""
