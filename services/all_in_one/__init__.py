"""All services in one process on an embedded Valkey: `python -m services all`."""
