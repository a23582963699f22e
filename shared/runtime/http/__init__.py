"""HTTP serving: the protocol, responses, health, CORS, the request log."""
