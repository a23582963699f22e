"""The services. Each is one process of its own, or all in one: `python -m services NAME`."""
